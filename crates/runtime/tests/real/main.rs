//! Tasks with real containers, made from a static busybox. They need root and a kernel with
//! namespaces and cgroups; without, each says so and passes.

#![allow(clippy::unwrap_used)] // all of it is tests

mod death;
mod harness;
mod isolation;
mod limits;
mod order;
mod process;
mod sessions;
mod share;
mod storage;
