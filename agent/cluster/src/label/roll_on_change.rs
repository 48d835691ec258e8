//! `ketch.roll_on_change=true|false`: whether a service is updated when a secret or config that it uses gets other data.

use crate::objects::Labels;

use super::Refusal;

pub const LABEL: &str = "ketch.roll_on_change";

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
        let said = |word: &str| parse(&Labels::from([(LABEL.to_owned(), word.to_owned())]));
        assert_eq!(parse(&Labels::new()), Ok(false));
        assert_eq!((said("true"), said("false")), (Ok(true), Ok(false)));
        let told = said("").unwrap_err().to_string();
        assert_eq!(told, "label ketch.roll_on_change: \"\" is neither true nor false");
    }
}
