"""homestretch: reinforcement learning for last-mile fine-tuning of language models, without human feedback."""

__version__ = "0.1.0"
