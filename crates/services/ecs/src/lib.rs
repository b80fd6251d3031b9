//! Elastic Container Service.
