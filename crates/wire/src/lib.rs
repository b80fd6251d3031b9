//! The front door: AWS protocols, SigV4, error shapes, request ids.
