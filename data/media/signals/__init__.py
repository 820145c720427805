"""Bytes of media to arrays and back: decoding, spectrograms, patches, augmentation."""
