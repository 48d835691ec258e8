//! `config.json`, parsed and checked.
