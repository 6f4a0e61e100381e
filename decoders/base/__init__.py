"""What every part of decoding rests on: errors, the model's interface, ranking, kinds, statements of methods."""
