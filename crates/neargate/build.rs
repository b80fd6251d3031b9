//! How the binary is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).as_deref() == Ok(value);
    // Every task has a process of this binary. Where its addresses are chosen anew at each start, each has a copy of
    // its own of every table with a pointer in it, which are megabytes; where they are fixed, all share the file's.
    if is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
        // There, Rust links with lld, which keeps one of functions that are the same.
        if is("CARGO_CFG_TARGET_ARCH", "x86_64") {
            println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        }
    }
}
