//! Texts that Docker's clients match or scripts depend on, letter by letter, each with who does.

/// docker-py's `errors.ImageNotFound`, and the CLI's decision to pull, see the first words.
#[must_use]
pub fn no_such_image(name: &str) -> String {
    format!("No such image: {name}")
}

/// Every client's "not found".
#[must_use]
pub fn no_such_container(name: &str) -> String {
    format!("No such container: {name}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts() {
        assert_eq!(super::no_such_image("a:b"), "No such image: a:b");
        assert_eq!(super::no_such_container("a"), "No such container: a");
    }
}
