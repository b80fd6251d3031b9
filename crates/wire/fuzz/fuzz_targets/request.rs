//! Any bytes as a request of any protocol: they become a value that fits its shape, or a fault with words.
#![no_main]

use bytes::Bytes;
use hyper::Uri;
use iam::api::OP_CREATE_ROLE;
use libfuzzer_sys::fuzz_target;
use ssm::api::{OP_DESCRIBE_PARAMETERS, OP_PUT_PARAMETER};
use wire::{Protocol, decode_for_fuzzing};

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, body) = input;
    let body = Bytes::copy_from_slice(body);
    let uri = Uri::from_static("/");
    let (ssm, iam) = (&ssm::api::SPEC, &iam::api::SPEC);
    let (spec, operation, protocol) = match choice % 8 {
        0 => (ssm, &OP_PUT_PARAMETER, Protocol::Json { minor: 1 }),
        1 => (ssm, &OP_DESCRIBE_PARAMETERS, Protocol::Json { minor: 1 }),
        2 => (ssm, &OP_PUT_PARAMETER, Protocol::Cbor),
        3 => (ssm, &OP_DESCRIBE_PARAMETERS, Protocol::Cbor),
        4 => (iam, &OP_CREATE_ROLE, Protocol::Query),
        5 => (iam, &OP_CREATE_ROLE, Protocol::Ec2),
        6 => (ssm, &OP_DESCRIBE_PARAMETERS, Protocol::Query),
        _ => (ssm, &OP_PUT_PARAMETER, Protocol::RestJson),
    };
    if let Err(fault) = decode_for_fuzzing(spec, operation, protocol, &uri, &body) {
        assert!(!fault.code.is_empty() && fault.is_sender());
    }
});
