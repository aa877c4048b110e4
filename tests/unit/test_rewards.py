"""The reward model on every backbone, its calibration, and what RL is paid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from homestretch.config import LengthConfig
from homestretch.forward import response_logprobs
from homestretch.models import load_language_model
from homestretch.rewards import reward_model
from homestretch.rewards.calibration import calibrate, fitted_temperature, within_group_slope
from homestretch.rewards.composition import RewardComposition
from homestretch.rewards.length import LengthModel, fit_length_model, length_penalty
from homestretch.rewards.reward_model import (
    Encoded,
    RewardGroup,
    build_reward_model,
    load_reward_model,
    save_reward_model,
)
from homestretch.rewards.training import reward_loss
from homestretch.types import Completion, Example, UserError
from tiny import TEXTS, tiny_config, tiny_examples


def bert_folder(path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *sorted({w for t in TEXTS for w in t.split()})]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )
    fast.save_pretrained(path)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    BertModel(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("score", ["likelihood", "pmi", "state"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bart", "t5", "encoder-decoder", "bert"])
def test_saved_and_loaded_it_gives_the_same_rewards(kind, score, tiny_folders, tmp_path):
    backbone = "sft" if kind != "bert" else str(bert_folder(tmp_path / "bert"))
    score = score if kind != "bert" else None
    config = tiny_config("llama" if kind == "bert" else kind, reward={"backbone": backbone, "score": score})
    model = build_reward_model(config, tiny_folders.get(kind, tmp_path))
    model.standardise([model.encode(e, Completion(e.reference)) for e in tiny_examples(6)])
    model.calibration = calibrate(
        reference_logits_N=np.array([1.0, 2.0]), reference_words_N=np.array([5.0, 9.0]),
        sample_logits_PK=np.array([[0.1, 0.4], [1.0, -1.0]]), sample_words_PK=np.array([[3.0, 4.0], [7.0, 2.0]]),
        labelled_logits_M=np.array([1.0, -1.0, 0.5]), labels_M=np.array([1.0, 0.0, 0.0]),
    )  # fmt: skip
    examples = tiny_examples(4)
    completions = [Completion(e.reference, terminated=i != 2) for i, e in enumerate(examples)]
    before = model(examples, completions)
    save_reward_model(model, tmp_path / "reward")
    after = load_reward_model(tmp_path / "reward", config)(examples, completions)
    assert np.allclose(before, after, atol=1e-5)
    assert np.ptp(after) > 0


def test_an_encoder_is_a_reward_but_no_policy(tmp_path):
    folder = bert_folder(tmp_path / "bert")
    with pytest.raises(UserError) as caught:
        load_language_model(folder, tiny_config(model={"path": str(folder)}))
    assert f"model.path: {folder} is an encoder-only model (bert), which cannot write text" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    config = tiny_config(reward={"backbone": str(folder)})
    assert build_reward_model(config, tmp_path).lm.family == "encoder"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_plain_transformers_gives_the_same_logit(kind, tiny_folders, tmp_path):
    model = build_reward_model(tiny_config(kind, reward={"score": "state"}), tiny_folders[kind])
    example = tiny_examples(1)[0]
    ours = model.raw([example], [Completion(example.reference)])[0]
    save_reward_model(model, tmp_path / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reward")
    text = example.prompt + " " + example.reference + tokenizer.eos_token
    with torch.no_grad():
        theirs = plain(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0, 0].item()
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("score", ["likelihood", "pmi"])
@pytest.mark.parametrize("terminated", [True, False])
def test_a_likelihood_score_is_its_formula_in_plain_transformers(terminated, score, tiny_folders, tmp_path):
    from safetensors.torch import load_file

    model = build_reward_model(tiny_config(reward={"score": score}), tiny_folders["llama"])
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        if score == "pmi":
            model.head.prior.fill_(0.7)
    examples = tiny_examples(4)
    model.standardise([model.encode(e, Completion(e.reference)) for e in examples])
    completion = Completion(examples[0].reference, terminated=terminated)
    ours = model.raw(examples[:1], [completion])[0]
    together = model.raw(examples[:1] * 3, [completion, Completion("other words", terminated=True), completion])
    assert together[[0, 2]] == pytest.approx(ours, abs=1e-4)

    save_reward_model(model, tmp_path / "reward")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "reward").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reward")
    head = load_file(tmp_path / "reward" / "reward_head.safetensors")
    text = " " + completion.text + (tokenizer.eos_token if terminated else "")
    written = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]

    def after(prompt):
        before = tokenizer(prompt, return_tensors="pt")["input_ids"]
        ids = torch.cat([before, written], dim=1)
        with torch.no_grad():
            out = plain(ids, output_hidden_states=True)
        logprobs = out.logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[before.shape[1] - 1 :]
        return out.hidden_states[-1][0, -1], logprobs.sum()

    (state, with_document), (_, without) = after(examples[0].prompt), after("\nSummary:")
    a, b = head["likelihood"]
    gain = with_document - head["prior"] * without if score == "pmi" else with_document
    assert ours == pytest.approx((head["weight"][0] @ state + a * gain + b).item(), abs=1e-4)


@pytest.mark.parametrize("score", ["likelihood", "pmi"])
def test_a_likelihood_starts_standardised_on_references(score, tiny_folders):
    model = build_reward_model(tiny_config(reward={"score": score}), tiny_folders["llama"])
    examples = tiny_examples(6)
    references = [Completion(e.reference) for e in examples]
    assert np.all(model.raw(examples, references) < -1)  # log-likelihoods
    model.standardise([model.encode(e, c) for e, c in zip(examples, references, strict=True)])
    scores = model.raw(examples, references)
    assert scores.mean() == pytest.approx(0, abs=1e-4)
    assert scores.std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_nothing_written_has_a_score(kind, tiny_folders):
    """Alone in its micro-batch: no token to read, with the document or without."""
    model = build_reward_model(tiny_config(kind), tiny_folders[kind])
    assert np.isfinite(model.raw(tiny_examples(1), [Completion("", terminated=False)])).all()


@pytest.mark.parametrize("kind", ["llama", "bart"])
def test_the_prompts_without_their_documents_are_packed_as_the_prompts_are(kind, tiny_folders, monkeypatch):
    """They are all alike, but in one row together every completion would look past all the others."""
    model, seen = build_reward_model(tiny_config(kind), tiny_folders[kind]), []

    def noted(lm, batch, **options):
        seen.append(len(batch.prompt_ids))
        return response_logprobs(lm, batch, **options)

    monkeypatch.setattr(reward_model, "response_logprobs", noted)
    model.raw([e for e in tiny_examples(3) for _ in range(2)], [Completion("Tom left."), Completion("No.")] * 3)
    assert seen == [3, 3]


def test_what_is_likely_without_the_document_is_taken_off(tiny_folders):
    """Of a prompt that is nothing but its document, a whole likelihood is left for what the document does not say."""
    model = build_reward_model(tiny_config(reward={"score": "pmi"}), tiny_folders["llama"])
    with torch.no_grad():
        model.head.prior.fill_(1.0)
    bare = [replace(e, prompt="\nSummary:", document_span=(0, 0)) for e in tiny_examples(4)]
    assert model.raw(bare, [Completion(e.reference) for e in bare]) == pytest.approx(0, abs=1e-5)


def test_the_paper_preset_reads_the_last_state_and_an_encoder_has_no_likelihood(tiny_folders, tmp_path):
    paper = build_reward_model(tiny_config(negatives={"preset": "paper"}), tiny_folders["llama"])
    assert paper.head is None
    encoder_decoder = build_reward_model(tiny_config("bart", negatives={"preset": "paper"}), tiny_folders["bart"])
    assert encoder_decoder.head.likelihood is None
    config = tiny_config(reward={"backbone": str(bert_folder(tmp_path / "bert")), "score": "likelihood"})
    with pytest.raises(UserError, match=r"reward.score: .* is an encoder \(bert\)"):
        build_reward_model(config, tmp_path)


def test_the_loss_falls_when_good_scores_above_bad():
    groups = [RewardGroup((Encoded((1,), (2,)),) * 3, (1.0, 0.0, 0.0))]
    config = tiny_config()
    good = reward_loss(torch.tensor([2.0, -2.0, -2.0]), groups, config, num_items=3, num_groups=1)
    bad = reward_loss(torch.tensor([-2.0, 2.0, 2.0]), groups, config, num_items=3, num_groups=1)
    assert good < bad
    paper = tiny_config(negatives={"preset": "paper"})
    bce = reward_loss(torch.tensor([2.0, -2.0, -2.0]), groups, paper, num_items=3, num_groups=1)
    expected = 0.9 * np.log1p(np.exp(-2)) + 0.1 * np.log1p(np.exp(2))
    assert bce.item() == pytest.approx(expected, abs=1e-6)
    assert good.item() == pytest.approx(np.log1p(np.exp(-4)) + 0.5 * expected + 1e-3 * 4, abs=1e-6)


def test_calibration_centres_references_scales_samples_and_removes_length():
    rng = np.random.default_rng(0)
    words = rng.integers(3, 40, size=(50, 8)).astype(float)
    quality = rng.normal(size=(50, 8))
    found = calibrate(
        reference_logits_N=rng.normal(3.0, 1.0, 50), reference_words_N=np.full(50, 12.0),
        sample_logits_PK=quality + 2 * np.log1p(words), sample_words_PK=words,
        labelled_logits_M=np.array([3.0, -3.0]), labels_M=np.array([1.0, 0.0]),
    )  # fmt: skip
    assert found.reward(np.full(1, found.center), np.array([0.0]))[0] == pytest.approx(0, abs=1e-9)
    rewards = found.reward(quality + 2 * np.log1p(words), words)
    assert abs(within_group_slope(np.log1p(words), rewards)) < 1e-9
    assert found.floor == pytest.approx(np.percentile(rewards, 1) - 1)


def test_the_temperature_makes_overconfident_logits_honest():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-logits))).astype(float)
    assert fitted_temperature(3 * logits, labels) == pytest.approx(3.0, rel=0.1)


def test_the_length_penalty_is_free_within_the_tolerance_and_bounded():
    lengths = np.array([9.0, 11.0, 4.0, 200.0, 0.0])
    penalties = length_penalty(lengths, np.full(5, 9.0), coefficient=0.5, tolerance=1.25)
    assert penalties[0] == penalties[1] == 0
    assert penalties[2] == pytest.approx(-0.5 * (np.log(2) - np.log(1.25)))
    assert penalties[3] == penalties[4] == -0.5


def test_the_length_model_uses_the_reference_or_predicts_from_the_source():
    train = [Example(str(n), "word " * n, "", None, ("w " * (n // 2),)) for n in (10, 20, 40, 80)]
    model = fit_length_model(train)
    assert model.expected(train).tolist() == [5, 10, 20, 40]
    assert model.expected([Example("u", "word " * 60, "")])[0] == pytest.approx(30, rel=0.1)


def composition(shaping, learned=0.3, floor=-4.0):
    def reward(examples, completions):
        return np.array([0.0 if c.text == "reference words here" else learned for c in completions])

    return RewardComposition(reward, floor, LengthModel(np.log(4), 0.0), LengthConfig(), shaping)


@pytest.mark.parametrize(
    ("shaping", "expected"),
    [("none", 0.3), ("log_sigmoid", -np.log1p(np.exp(-0.3))), ("sigmoid", 1 / (1 + np.exp(-0.3)))],
)
def test_shaping_compares_with_the_reference(shaping, expected):
    labelled = Example("a", "s", "p", None, ("reference words here",))
    scored = composition(shaping)([labelled], [Completion("three words here")])
    assert scored.scores[0] == pytest.approx(expected)


def test_without_a_terminator_the_score_is_the_floor_and_nothing_else():
    labelled = Example("a", "s", "p", None, ("reference words here",))
    scored = composition("none", learned=9.0)([labelled], [Completion("w " * 500, terminated=False)])
    assert scored.scores[0] == -4.0


def test_a_reward_that_is_not_finite_or_misshapen_is_an_error():
    with pytest.raises(ValueError, match="not finite for 1 of 1"):
        composition("none", learned=float("nan"))([Example("a", "s", "p")], [Completion("x")])
    broken = RewardComposition(lambda e, c: np.zeros(3), -4.0, LengthModel(1.0, 0.0), LengthConfig(), "none")
    with pytest.raises(ValueError, match="shape"):
        broken([Example("a", "s", "p")], [Completion("x")])
