//! Elastic Container Registry.
