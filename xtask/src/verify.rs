//! Kernels in VMs for `cargo xtask ebpf --verify`.
