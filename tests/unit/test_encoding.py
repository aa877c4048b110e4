"""The terminator from text to ids and back, PAD apart from EOS, and cutting the document alone."""

from __future__ import annotations

import pytest

from homestretch.encoding import Codec, encoded_pairs, pad
from homestretch.forward import response_batch
from homestretch.models import load_language_model
from homestretch.rewards.reward_model import build_reward_model
from homestretch.types import Completion, Example, UserError
from tiny import NEW_MODELS, tiny_config, tiny_examples


@pytest.fixture(params=NEW_MODELS)
def lm(request, tiny_folders):
    return load_language_model(tiny_folders[request.param], tiny_config(request.param))


def test_pad_is_not_eos_and_eos_counts_in_the_loss(lm):
    assert lm.codec.pad_id != lm.codec.eos_id
    pairs, _ = encoded_pairs(lm.codec, tiny_examples(3))
    batch = response_batch([p for p, _ in pairs], [c for _, c in pairs], lm)
    for row, counts, (_, ids) in zip(batch.ids_BT.tolist(), batch.mask_BT.tolist(), pairs, strict=True):
        assert ids[-1] == lm.codec.eos_id
        counted = [i for i, counts_here in zip(row, counts, strict=True) if counts_here]
        assert counted == list(ids)


def test_a_tokenizer_whose_pad_is_eos_gets_a_pad_of_its_own(tiny_folders, tmp_path):
    lm = load_language_model(tiny_folders["gpt2"], tiny_config("gpt2"))
    lm.codec.tokenizer.pad_token = lm.codec.tokenizer.eos_token
    lm.model.save_pretrained(tmp_path)
    lm.codec.tokenizer.save_pretrained(tmp_path)
    again = load_language_model(tmp_path, tiny_config("gpt2"))
    assert again.codec.pad_id != again.codec.eos_id
    assert again.model.get_input_embeddings().num_embeddings > again.codec.pad_id
    assert again.model.config.pad_token_id == again.codec.pad_id


def test_the_terminator_is_there_if_and_only_if_the_completion_terminated(lm):
    ended = lm.codec.encode_completion(Completion("Eva forgot the milk.", terminated=True))
    cut = lm.codec.encode_completion(Completion("Eva forgot the milk.", terminated=False))
    assert ended == (*cut, lm.codec.eos_id)
    assert lm.codec.eos_id not in cut


def test_a_completion_cut_at_the_cap_has_no_forged_terminator(lm):
    ids = lm.codec.encode_completion(Completion("milk " * 200, terminated=True))
    assert len(ids) == lm.codec.data.max_completion_tokens
    assert ids[-1] != lm.codec.eos_id


@pytest.mark.parametrize("kind", ["llama", "bart"])
def test_the_reward_model_sees_the_terminator(kind, tiny_folders):
    model = build_reward_model(tiny_config(kind), tiny_folders[kind])
    example = tiny_examples(1)[0]
    scores = model.raw([example] * 2, [Completion(example.reference, terminated=t) for t in (True, False)])
    assert abs(scores[0] - scores[1]) > 1e-6


def held(lm, completion, span):
    """The text of the ids that stand in the span; EOS as "$"."""
    ids, inside = lm.codec.encode_completion(completion), lm.codec.tokens_in_span(completion, span)
    assert len(ids) == len(inside)
    found = [i for i, is_inside in zip(ids, inside, strict=True) if is_inside]
    return lm.codec.tokenizer.decode([i for i in found if i != lm.codec.eos_id]).strip() + "$" * (
        lm.codec.eos_id in found
    )


def test_the_tokens_of_a_span_of_the_text(lm):
    text = "Eva forgot the milk."
    ended, cut = Completion(text), Completion(text, terminated=False)
    assert held(lm, ended, (11, 19)) == "the milk"
    assert held(lm, ended, (10, 20)) == "the milk."  # a span that begins at the space before
    assert held(lm, ended, (0, len(text))) == text
    assert held(lm, ended, (len(text), len(text))) == "$"  # something is missing at the end, and it stopped there
    assert held(lm, cut, (len(text), len(text))) == ""  # nothing was said in its place
    assert sum(lm.codec.tokens_in_span(ended, (11, 11))) == 1  # what was removed there was replaced by one token
    assert "the milk.".startswith(held(lm, ended, (11, 11)))
    assert held(lm, Completion(""), (0, 0)) == "$"


def test_the_tokens_of_a_span_end_at_the_cap(lm):
    long = Completion("milk " * 200)
    assert len(lm.codec.tokens_in_span(long, (0, 9))) == len(lm.codec.encode_completion(long))


def test_decoding_gives_back_the_text(lm):
    ids = lm.codec.encode_completion(Completion("Eva forgot the milk.", terminated=False))
    assert lm.codec.decode(ids, terminated=False).text == "Eva forgot the milk."


def test_only_the_document_is_cut_and_it_is_said(tiny_folders):
    config = tiny_config("llama")
    codec = load_language_model(tiny_folders["llama"], config).codec
    document = "Tom: did you buy the milk?\n" * 40
    long = Example("x", document, document + "\nSummary:", (0, len(document)))
    prompt = codec.encode_prompt(long)
    assert prompt.was_cut
    assert len(prompt.ids) <= config.data.max_prompt_tokens
    assert codec.tokenizer.decode(prompt.ids).endswith(codec.tokenizer.decode(codec._prompt_ids("\nSummary:")))
    assert not codec.encode_prompt(tiny_examples(1)[0]).was_cut


def test_a_template_longer_than_the_limit_is_an_error(tiny_folders):
    codec = load_language_model(tiny_folders["llama"], tiny_config()).codec
    template = "milk " * 300
    with pytest.raises(UserError, match="max_prompt_tokens=128"):
        codec.encode_prompt(Example("x", "doc", "doc" + template, (0, 3)))


def test_a_tokenizer_without_eos_is_an_error(tiny_folders):
    codec = load_language_model(tiny_folders["llama"], tiny_config()).codec
    codec.tokenizer.eos_token = None
    with pytest.raises(UserError, match="no EOS"):
        Codec(codec.tokenizer, "causal", codec.data)


def test_the_chat_template_goes_around_the_prompt(tiny_folders):
    data = {
        "task": "chats", "chat_template": True, "system_prompt": "Be brief.", "max_prompt_tokens": 30,
        "max_completion_tokens": 8,
    }  # fmt: skip
    codec = load_language_model(tiny_folders["llama"], tiny_config(data=data)).codec
    codec.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] | trim + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    words = ["Tom", "did", "you", "buy", "the", "milk"] * 9
    document = " ".join(words)
    prompt = codec.encode_prompt(Example("x", document, f"{document} ", (0, len(document))))
    assert prompt.was_cut
    assert len(prompt.ids) <= 30
    text = codec.tokenizer.decode(prompt.ids)
    assert text.rstrip().endswith(codec.tokenizer.decode(codec._prompt_ids("\nassistant:")).strip())


def test_padding_on_either_side():
    ids, mask = pad([[5, 6], [7]], 0, left=True)
    assert ids.tolist() == [[5, 6], [0, 7]]
    assert mask.tolist() == [[True, True], [False, True]]
    ids, mask = pad([[5, 6], [7]], 0)
    assert ids.tolist() == [[5, 6], [7, 0]]
    assert mask.tolist() == [[True, True], [True, False]]


def test_a_prompt_without_its_document_keeps_the_template(tiny_folders):
    codec = load_language_model(tiny_folders["llama"], tiny_config()).codec
    one, other = tiny_examples(2)
    assert codec.encode_bare_prompt(one) == codec.encode_bare_prompt(other) == tuple(codec._prompt_ids("\nSummary:"))
    first = codec.encode_bare_prompt(Example("x", "a b", "a b", None))
    assert first in ((codec.tokenizer.bos_token_id,), (codec.eos_id,)), "nothing is left, and a first token must follow"
