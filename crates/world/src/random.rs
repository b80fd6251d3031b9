//! Random bytes: the kernel's, or a repeatable stream from a seed.

use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Mutex;

pub(crate) enum Random {
    Kernel(SystemRandom),
    /// The state of a SplitMix64 generator: not secret, only repeatable.
    Seeded(Mutex<u64>),
}

impl Random {
    pub(crate) fn kernel() -> Self {
        Self::Kernel(SystemRandom::new())
    }

    pub(crate) fn seeded(seed: u64) -> Self {
        Self::Seeded(Mutex::new(seed))
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        match self {
            Self::Kernel(system) => system.fill(bytes).expect("getrandom(2) works on every Linux"),
            Self::Seeded(state) => {
                let mut state = state.lock().expect("no holder of this lock can panic");
                for chunk in bytes.chunks_mut(8) {
                    let word = splitmix64(&mut state).to_le_bytes();
                    chunk.copy_from_slice(&word[..chunk.len()]);
                }
            }
        }
    }
}

/// One step of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
