//! `ketch.mesh.prefer-local=true|false`: whether a node that runs tasks of the service sends what comes in by its published ports to
//! those alone.

use crate::objects::Labels;

use super::Refusal;

pub const LABEL: &str = "ketch.mesh.prefer-local";

/// Whether it is asked for.
///
/// # Errors
/// When the value is another word.
pub fn parse(labels: &Labels) -> Result<bool, Refusal> {
    super::switch(labels, LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_words() {
        assert_eq!(parse(&Labels::new()), Ok(false));
        for (word, wanted) in [("true", true), ("false", false)] {
            assert_eq!(parse(&Labels::from([(LABEL.to_owned(), word.to_owned())])), Ok(wanted));
        }
        let told = parse(&Labels::from([(LABEL.to_owned(), "True".to_owned())])).unwrap_err().to_string();
        assert_eq!(told, "label ketch.mesh.prefer-local: \"True\" is neither true nor false");
    }
}
