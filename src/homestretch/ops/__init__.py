"""Pure functions on tensors, arrays and text: no I/O, no config, no models.

Shape suffixes: B sequences in the batch, T positions of the completion (padded), V vocabulary.
`mask_BT` is True where a token counts, everywhere.
"""
