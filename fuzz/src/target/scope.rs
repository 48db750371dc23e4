//! Scopes of token requests: a field each line. What a token gets of them is what was asked and is granted.

use std::sync::Arc;

use oci::{Actions, ErrorCode, MAX_SCOPES, RepositoryName, Resource, Timestamp, parse_scopes};
use policy::{Grant, Grantee, Identity, RepositoryPattern, Rules, Subject, SubjectId, SubjectKind, Verbs};

use crate::Input;

// security: B-01, B-03
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut fields = Vec::new();
    while !input.is_empty() {
        fields.push(input.text_line());
    }
    let texts = || fields.iter().map(String::as_str);
    let wanted: Vec<&str> = texts().flat_map(str::split_ascii_whitespace).collect();
    let Ok(scopes) = parse_scopes(texts()).inspect_err(|error| assert_eq!(error.code, ErrorCode::Unsupported)) else {
        assert!(wanted.len() > MAX_SCOPES, "{fields:?}");
        return;
    };
    assert!(scopes.len() <= MAX_SCOPES && scopes.len() <= wanted.len());
    for (index, (resource, actions)) in scopes.iter().enumerate() {
        assert!(!scopes[..index].iter().any(|(known, _)| known == resource), "{fields:?}");
        let named = |text: &&&str| match resource {
            Resource::Repository(name) => {
                text.starts_with("repository")
                    && text.rsplit_once(':').is_some_and(|(before, _)| before.ends_with(name.as_str()))
            }
            Resource::Catalog => text.starts_with("registry"),
        };
        let asked: Vec<&&str> = wanted.iter().filter(named).collect();
        assert!(!asked.is_empty(), "{resource} in {fields:?}");
        for action in actions.iter() {
            let said = |text: &&&str| {
                let list = text.rsplit(':').next().unwrap_or_default();
                // Blanks around an action do not count, and not all of them end a scope.
                list.split(',').map(str::trim).any(|word| word == action || word == "*")
            };
            assert!(asked.iter().any(said), "{resource}:{action} in {fields:?}");
        }
        let again = match resource {
            Resource::Catalog if *actions == Actions::ALL => "registry:catalog:*".to_owned(),
            _ => format!("{resource}:{actions}"),
        };
        assert_eq!(parse_scopes([again.as_str()]), Ok(vec![(resource.clone(), *actions)]), "{fields:?}");
    }
    granted(&scopes);
}

fn granted(scopes: &[(Resource, Actions)]) {
    let (reader, now) = (SubjectId(1), Timestamp(0));
    let subject = Subject {
        id: reader,
        name: "reader".into(),
        kind: SubjectKind::User,
        administrator: false,
        disabled: false,
        epoch: 0,
        expires_at: None,
    };
    let grant = Grant {
        id: 1,
        grantee: Grantee::Subject(reader),
        verbs: Verbs::parse("pull,list").unwrap(),
        repository: RepositoryPattern::parse("a/**").unwrap(),
        tags: Vec::new(),
        expires_at: None,
    };
    let rules = Arc::new(Rules::new(0, vec![subject], vec![grant]));
    let inside = |name: &RepositoryName| name.as_str().starts_with("a/");
    let given = policy::grant_scopes(&rules, Identity::Subject(reader), scopes, now);
    assert_eq!(given.len(), scopes.len());
    for (given, (resource, actions)) in given.iter().zip(scopes) {
        assert_eq!((&given.resource, given.asked), (resource, *actions));
        assert!(actions.contains(given.granted));
        let Resource::Repository(name) = resource else { continue };
        assert_eq!(given.granted, Actions { pull: actions.pull && inside(name), ..Actions::NONE }, "{name}");
    }
    let nothing = policy::grant_scopes(&rules, Identity::Anonymous, scopes, now);
    // The catalog is for everybody, and shows what one may list.
    let repositories = nothing.iter().filter(|scope| scope.resource != Resource::Catalog);
    assert!(repositories.into_iter().all(|scope| scope.granted.is_empty()));
}
