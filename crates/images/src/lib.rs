//! Image blobs, registries, layers.
