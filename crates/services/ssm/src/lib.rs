//! Systems Manager Parameter Store.
