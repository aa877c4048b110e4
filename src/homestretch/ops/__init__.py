"""Pure functions on tensors, arrays and text: no I/O, no config, no models.

Shape suffixes: B sequences in the batch, N rollouts of an update, T positions of the completion (padded),
V vocabulary. `group_N` says which prompt a rollout answers: equal numbers, same prompt.
`mask_BT` is True where a token counts, everywhere.
"""
