//! The eBPF build recipe.
