//! Patterns of grants: a pattern, a name or tag, verbs; one a line.

use oci::{RepositoryName, Tag};
use policy::{RepositoryPattern, Role, TagPattern, Verb, Verbs};

use crate::Input;
use crate::oracle::glob;

// security: I-08
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (pattern, name, verbs) = (input.text_line(), input.text_line(), input.text_line());
    if let Ok(parsed) = RepositoryPattern::parse(&pattern) {
        assert_eq!(parsed.to_string(), pattern);
        assert!(pattern.len() <= RepositoryName::MAX);
        assert!(pattern.contains('*') || RepositoryName::parse(&pattern).is_ok());
        if let Ok(name) = RepositoryName::parse(&name) {
            let matches = parsed.matches(&name);
            assert_eq!(matches, repository_matches(&pattern, name.as_str()), "{pattern} {name}");
            assert!(!matches || parsed.range().contains(name.as_str()), "{pattern} {name}");
        }
    }
    if let Ok(parsed) = TagPattern::parse(&pattern) {
        assert_eq!(parsed.to_string(), pattern);
        if let Ok(tag) = Tag::parse(&name) {
            assert_eq!(parsed.matches(&tag), glob(&pattern, tag.as_str()), "{pattern} {tag}");
        }
    }
    if let Ok(parsed) = Verbs::parse(&verbs) {
        let printed = parsed.to_string();
        assert_eq!(Verbs::parse(&printed), Ok(parsed), "{verbs}");
        for verb in verbs.split(',') {
            let verb = Verb::parse(verb.trim()).unwrap();
            assert!(parsed.iter().any(|known| known == verb), "{verbs}");
        }
    }
    if let Ok(role) = Role::parse(&verbs) {
        assert_eq!(role.as_str(), verbs);
    }
}

/// Component by component; a last `**` takes one or more.
fn repository_matches(pattern: &str, name: &str) -> bool {
    let (patterns, names): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), name.split('/').collect());
    let (patterns, open) = match patterns.split_last() {
        Some((&"**", before)) => (before, true),
        _ => (&patterns[..], false),
    };
    let long_enough = if open { names.len() > patterns.len() } else { names.len() == patterns.len() };
    long_enough && patterns.iter().zip(names).all(|(pattern, name)| glob(pattern, name))
}
