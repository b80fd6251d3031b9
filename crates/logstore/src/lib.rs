//! Log segments: append, index, tail, filter.
