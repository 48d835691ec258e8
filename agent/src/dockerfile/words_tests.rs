//! Words of a Dockerfile: quotes, escapes and variables as the classic builder has them.

use proptest::prelude::*;

use super::*;

fn variables() -> Vec<String> {
    ["A=a", "EMPTY=", "PATH=/usr/bin:/bin", "LIST=x y", "FILE=a.tar.gz"].map(str::to_owned).into()
}

#[test]
fn substitutions() {
    let variables = variables();
    let how = Substitution::new('\\', &variables);
    for (text, wanted) in [
        ("x$A/y", "xa/y"),
        ("${A}b$NONE.", "ab."),
        ("\\$A '$A' \"$A\" \"\\$A\"", "$A $A a $A"),
        ("${NONE:-d$A}", "da"),
        ("${EMPTY:-d}${EMPTY-d}", "d"),
        ("${A:+s}${EMPTY:+s}${EMPTY+s}", "ss"),
        ("${A:?no}", "a"),
        ("${FILE#*.}", "tar.gz"),
        ("${FILE##*.}", "gz"),
        ("${FILE%.*}", "a.tar"),
        ("${FILE%%.*}", "a"),
        ("${PATH/bin/sbin}", "/usr/sbin:/bin"),
        ("${PATH//bin/x}", "/usr/x:/x"),
        ("${PATH//\\//_}", "_usr_bin:_bin"),
        ("$1$$", ""),
        ("a\\", "a"),
        ("$", "$"),
        ("a < b", "a < b"),
    ] {
        assert_eq!(how.word(text).as_deref(), Ok(wanted), "{text}");
    }
    assert_eq!(how.words("80 $LIST \"$LIST\" z").unwrap(), ["80", "x", "y", "x y", "z"]);
}

#[test]
fn what_is_wrong_is_said() {
    let variables = variables();
    let how = Substitution::new('\\', &variables);
    for (text, wanted) in [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        ("${A", "unsupported modifier (\u{fffd}) in substitution"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${A:-b", "syntax error: missing '}'"),
        ("${A^}", "unsupported modifier (^) in substitution"),
        ("${A:=b}", "unsupported modifier (:=) in substitution"),
        ("${NONE?why}", "NONE: why"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${A/x}", "syntax error: missing '/' in ${}"),
    ] {
        let wanted = format!("failed to process {}: {wanted}", quoted(text));
        assert_eq!(how.word(text).unwrap_err(), wanted, "{text}");
    }
    assert!(how.word(&"${A:-".repeat(10_000)).is_err());
    let long = ["A=".to_owned() + &"x".repeat(100_000)];
    assert!(Substitution::new('\\', &long).word("$A$A$A").is_err());
    assert!(Substitution::new('\\', &long).word("\"$A$A$A\"").is_err());
}

proptest! {
    #[test]
    fn any_text_is_read(text in ".*") {
        let variables = variables();
        let _either = Substitution::new('\\', &variables).word(&text);
        let _either = Substitution::new('`', &variables).words(&text);
    }

    #[test]
    fn what_is_in_single_quotes_is_itself(text in "[^']*") {
        let quoted = format!("'{text}'");
        prop_assert_eq!(Substitution::new('\\', &variables()).word(&quoted).unwrap(), text);
    }
}
