//! Tasks and their containers: the shim, its protocol and its client.
