//! The part of EC2 that networks need.
