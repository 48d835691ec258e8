//! Single cases
