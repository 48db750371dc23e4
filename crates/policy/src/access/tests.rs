use oci::RepositoryName;
use proptest::prelude::*;

use super::*;
use crate::{Grant, Grantee, RepositoryPattern, Role, Subject, SubjectKind, TagPattern, TokenScopes};

const NOW: Timestamp = Timestamp(1_000_000);
const ALICE: SubjectId = SubjectId(1);
const ROBOT: SubjectId = SubjectId(2);
const ADMIN: SubjectId = SubjectId(3);
const DISABLED: SubjectId = SubjectId(4);
const EXPIRED: SubjectId = SubjectId(5);
const NOBODY: SubjectId = SubjectId(6);
const REMOVED: SubjectId = SubjectId(99);

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn subject(id: SubjectId, name: &str) -> Subject {
    Subject {
        id,
        name: name.into(),
        kind: SubjectKind::User,
        administrator: false,
        disabled: false,
        epoch: 1,
        expires_at: None,
    }
}

fn grant(grantee: Grantee, verbs: Verbs, pattern: &str) -> Grant {
    let repository = RepositoryPattern::parse(pattern).unwrap();
    Grant { id: 0, grantee, verbs, repository, tags: Vec::new(), expires_at: None }
}

fn tagged(mut grant: Grant, patterns: &[&str]) -> Grant {
    grant.tags = patterns.iter().map(|pattern| TagPattern::parse(pattern).unwrap()).collect();
    grant
}

fn until(mut grant: Grant, end: i64) -> Grant {
    grant.expires_at = Some(Timestamp(end));
    grant
}

/// Alice reads `read/**` and writes `write/**`; tags of `tags/app` by pattern; everybody pulls from `public`.
fn rules() -> Arc<Rules> {
    let alice = |verbs, pattern| grant(Grantee::Subject(ALICE), verbs, pattern);
    let subjects = vec![
        subject(ALICE, "alice"),
        Subject { kind: SubjectKind::Robot, ..subject(ROBOT, "payments.ci") },
        Subject { administrator: true, ..subject(ADMIN, "admin") },
        Subject { disabled: true, administrator: true, ..subject(DISABLED, "disabled") },
        Subject { expires_at: Some(NOW), administrator: true, ..subject(EXPIRED, "expired") },
        subject(NOBODY, "nobody"),
    ];
    let mut grants = vec![
        alice(Role::Reader.verbs(), "read/**"),
        alice(Role::Writer.verbs(), "write/**"),
        alice(Role::Maintainer.verbs(), "own"),
        alice(Verbs::of(&[Verb::List]), "listed"),
        alice(Verbs::of(&[Verb::Push]), "pushed"),
        alice(Verbs::of(&[Verb::TagDelete]), "untag"),
        tagged(alice(Verbs::READ, "tags/app"), &["v1.*", "latest"]),
        tagged(alice(Verbs::of(&[Verb::Push, Verb::TagCreate, Verb::TagMove]), "tags/app"), &["dev-*"]),
        tagged(alice(Verbs::of(&[Verb::TagDelete]), "tags/*"), &["tmp"]),
        until(alice(Role::Writer.verbs(), "past"), NOW.0),
        until(alice(Role::Writer.verbs(), "future"), NOW.0 + 1),
        grant(Grantee::Subject(ROBOT), Verbs::of(&[Verb::Push, Verb::TagCreate]), "payments/api"),
        // Of this only pull and list count.
        grant(Grantee::Anonymous, Verbs::ALL, "public"),
        grant(Grantee::Subject(REMOVED), Verbs::ALL, "**"),
    ];
    grants.extend([DISABLED, EXPIRED].map(|id| grant(Grantee::Subject(id), Verbs::ALL, "**")));
    Arc::new(Rules::new(7, subjects, grants))
}

fn caller(identity: Identity, credential: Credential) -> Arc<Caller> {
    Arc::new(Caller {
        identity,
        credential,
        credential_id: "test".to_owned(),
        source: "127.0.0.1".to_owned(),
        request_id: "request-1".to_owned(),
    })
}

fn basic(id: SubjectId) -> Arc<Caller> {
    caller(Identity::Subject(id), Credential::Basic)
}

fn none() -> Arc<Caller> {
    caller(Identity::Anonymous, Credential::None)
}

/// A token as the token service would issue it for these scopes.
fn bearer(rules: &Rules, identity: Identity, scopes: &[&str]) -> Arc<Caller> {
    let wanted = oci::parse_scopes(scopes.iter().copied()).unwrap();
    caller(identity, Credential::Token(TokenScopes(grant_scopes(rules, identity, &wanted, NOW))))
}

/// The answer as the table of answers has it: `ok`, `401`, `401 invalid_token`, `401 insufficient_scope`, `403`, `404`.
fn answer<T>(decision: &Result<T, Refusal>) -> String {
    match decision {
        Ok(_) => "ok".to_owned(),
        Err(Refusal::Challenge { error: None, .. }) => "401".to_owned(),
        Err(Refusal::Challenge { error: Some(error), .. }) => format!("401 {error}"),
        Err(Refusal::Denied { .. }) => "403".to_owned(),
        Err(Refusal::Hidden) => "404".to_owned(),
    }
}

fn decide(caller: &Arc<Caller>, repository: &str, need: Need<'_>) -> Result<Access, Refusal> {
    authorize(&rules(), caller, &name(repository), need, NOW)
}

const NEEDS: [&str; 6] = ["pull", "pull tag", "list", "push", "delete", "delete tag"];

fn need<'a>(text: &str, tag: &'a Tag) -> Need<'a> {
    match text {
        "pull" => Need::Pull,
        "pull tag" => Need::PullTag(tag),
        "list" => Need::List,
        "push" => Need::Push,
        "delete" => Need::Delete,
        _ => Need::DeleteTag(tag),
    }
}

/// `settled.md` 2, row by row: caller × repository, the answers to [`NEEDS`] in that order.
#[test]
fn answers() {
    let (rules, tag) = (rules(), tag("v1.0"));
    let alice = Identity::Subject(ALICE);
    let all = |repository: &str| format!("repository:{repository}:*");
    let asked = |repository: &str| bearer(&rules, alice, &[&all(repository)]);
    let no_login = ["401"; 6];
    let narrow = ["401 insufficient_scope"; 6];
    let hidden = ["404"; 6];
    let reader = ["ok", "ok", "ok", "403", "403", "403"];
    let writer = ["ok", "ok", "ok", "ok", "403", "403"];
    for (who, caller, repository, expected) in [
        // No credential: the same everywhere.
        ("nobody", none(), "read/a", no_login),
        ("nobody", none(), "hidden", no_login),
        ("nobody", none(), "public", no_login),
        ("Og==", caller(Identity::Anonymous, Credential::Basic), "public", no_login),
        ("socket", caller(Identity::Anonymous, Credential::Socket), "public", no_login),
        // Bearer, scope not asked.
        ("login only", bearer(&rules, alice, &[]), "read/a", narrow),
        ("login only", bearer(&rules, alice, &[]), "hidden", narrow),
        ("other name", asked("read/a"), "read/b", narrow),
        ("other name", asked("read/a"), "hidden", narrow),
        ("b03 prefix", asked("read/a"), "read/a/x", narrow),
        ("b03 prefix", asked("read/a/x"), "read/a", narrow),
        ("other type", bearer(&rules, alice, &["registry:catalog:*"]), "read/a", narrow),
        // Bearer, scope asked.
        ("asked", asked("hidden"), "hidden", hidden),
        ("asked", asked("read/a"), "read/a", reader),
        ("asked", asked("write/a"), "write/a", writer),
        ("asked", asked("own"), "own", ["ok"; 6]),
        ("asked", asked("listed"), "listed", ["403", "403", "ok", "403", "403", "403"]),
        ("asked", asked("pushed"), "pushed", ["403", "403", "403", "ok", "403", "403"]),
        ("asked", asked("untag"), "untag", ["403", "403", "403", "403", "403", "ok"]),
        ("asked", asked("past"), "past", hidden),
        ("asked", asked("future"), "future", writer),
        ("asked", asked("public"), "public", reader),
        // Basic.
        ("basic", basic(ALICE), "hidden", hidden),
        ("basic", basic(ALICE), "read/a", reader),
        ("basic", basic(ALICE), "read", hidden),
        ("basic", basic(ALICE), "write/a", writer),
        ("basic", basic(ALICE), "past", hidden),
        ("basic", basic(ALICE), "future", writer),
        ("basic", basic(NOBODY), "read/a", hidden),
        ("basic", basic(NOBODY), "public", reader),
        ("b16 basic", basic(ADMIN), "read/a", hidden),
        ("robot", basic(ROBOT), "payments/api", ["403", "403", "403", "ok", "403", "403"]),
        // Anonymous with a token.
        ("anonymous", bearer(&rules, Identity::Anonymous, &[&all("public")]), "public", reader),
        ("anonymous", bearer(&rules, Identity::Anonymous, &[&all("hidden")]), "hidden", hidden),
        ("anonymous", bearer(&rules, Identity::Anonymous, &[]), "public", narrow),
        // Not there any more.
        ("disabled", basic(DISABLED), "read/a", no_login),
        ("expired", basic(EXPIRED), "public", no_login),
        ("removed", basic(REMOVED), "read/a", no_login),
        (
            "disabled",
            caller(Identity::Subject(DISABLED), asked("read/a").credential.clone()),
            "read/a",
            ["401 invalid_token"; 6],
        ),
        (
            "expired",
            caller(Identity::Subject(EXPIRED), asked("read/a").credential.clone()),
            "read/a",
            ["401 invalid_token"; 6],
        ),
        ("removed", bearer(&rules, Identity::Subject(REMOVED), &[]), "read/a", ["401 invalid_token"; 6]),
    ] {
        for (text, expected) in NEEDS.into_iter().zip(expected) {
            let decision = authorize(&rules, &caller, &name(repository), need(text, &tag), NOW);
            assert_eq!(answer(&decision), expected, "{who}: {text} {repository}");
        }
    }
}

#[test]
fn a_token_lets_through_what_was_asked_and_granted() {
    let (rules, alice) = (rules(), Identity::Subject(ALICE));
    for (scope, repository, expected) in [
        ("repository:own:pull", "own", ["ok", "401 insufficient_scope", "401 insufficient_scope"]),
        ("repository:own:push", "own", ["401 insufficient_scope", "ok", "401 insufficient_scope"]),
        ("repository:own:delete", "own", ["401 insufficient_scope", "401 insufficient_scope", "ok"]),
        ("repository:own:pull,push", "own", ["ok", "ok", "401 insufficient_scope"]),
        ("repository:read/a:pull,push", "read/a", ["ok", "403", "401 insufficient_scope"]),
        ("repository:hidden:pull", "hidden", ["404", "401 insufficient_scope", "401 insufficient_scope"]),
    ] {
        let caller = bearer(&rules, alice, &[scope]);
        for (need, expected) in [Need::Pull, Need::Push, Need::Delete].into_iter().zip(expected) {
            assert_eq!(answer(&authorize(&rules, &caller, &name(repository), need, NOW)), expected, "{scope} {need:?}");
        }
    }
    // A pull token of a maintainer does not carry its other verbs.
    let access =
        authorize(&rules, &bearer(&rules, alice, &["repository:own:pull"]), &name("own"), Need::Pull, NOW).unwrap();
    let held: Vec<Verb> = Verb::ALL.into_iter().filter(|verb| access.may(*verb)).collect();
    assert_eq!(held, [Verb::Pull, Verb::List]);
    assert!(!access.may_tag(Verb::TagMove, &tag("a")) && access.source(&name("own")).is_none());
}

#[test]
fn grants_act_on_issued_tokens() {
    let (before, alice) = (rules(), Identity::Subject(ALICE));
    let wider = Arc::new(Rules::new(
        8,
        vec![subject(ALICE, "alice")],
        vec![grant(Grantee::Subject(ALICE), Role::Writer.verbs(), "hidden")],
    ));
    let none = Arc::new(Rules::new(9, vec![subject(ALICE, "alice")], vec![]));
    let caller = bearer(&before, alice, &["repository:own:pull,push,delete"]);
    assert_eq!(answer(&authorize(&none, &caller, &name("own"), Need::Pull, NOW)), "404");
    // Refused when the token was made, granted since: a new token is asked for.
    let caller = bearer(&before, alice, &["repository:hidden:pull,push"]);
    assert_eq!(answer(&authorize(&before, &caller, &name("hidden"), Need::Push, NOW)), "404");
    assert_eq!(answer(&authorize(&wider, &caller, &name("hidden"), Need::Push, NOW)), "401 insufficient_scope");
    let caller = bearer(&wider, alice, &["repository:hidden:pull,push"]);
    assert_eq!(answer(&authorize(&wider, &caller, &name("hidden"), Need::Push, NOW)), "ok");
    // What was granted without being asked for counts for nothing.
    let issued = |resource: Resource, asked, granted| {
        super::tests::caller(alice, Credential::Token(TokenScopes(vec![Scope { resource, asked, granted }])))
    };
    let own = || Resource::Repository(name("own"));
    let pull = Actions { pull: true, ..Actions::NONE };
    let decision = authorize(&before, &issued(own(), Actions::NONE, Actions::ALL), &name("own"), Need::Pull, NOW);
    assert_eq!(answer(&decision), "401 insufficient_scope");
    let access = authorize(&before, &issued(own(), pull, Actions::ALL), &name("own"), Need::Pull, NOW).unwrap();
    assert!(!access.may(Verb::Push) && !access.may(Verb::Delete));
    let decision = authorize_catalog(&before, &issued(Resource::Catalog, Actions::ALL, Actions::NONE), NOW);
    assert_eq!(answer(&decision), "401 insufficient_scope");
}

#[test]
fn b01_granted_scopes_are_wanted_and_held() {
    let rules = rules();
    let scopes = |identity, wanted: &str| {
        let wanted = oci::parse_scopes([wanted]).unwrap();
        let scopes = grant_scopes(&rules, identity, &wanted, NOW);
        scopes.iter().map(|s| format!("{}:{}/{}", s.resource, s.asked, s.granted)).collect::<Vec<_>>().join(" ")
    };
    let alice = Identity::Subject(ALICE);
    for (identity, wanted, expected) in [
        (alice, "repository:read/x:pull,push,delete,*", "repository:read/x:pull,push,delete/pull"),
        (alice, "repository:write/x:push", "repository:write/x:push/push"),
        (alice, "repository:own:*", "repository:own:pull,push,delete/pull,push,delete"),
        (alice, "repository:listed:*", "repository:listed:pull,push,delete/pull"),
        (alice, "repository:untag:*", "repository:untag:pull,push,delete/delete"),
        (alice, "repository:hidden:pull repository:read/x:pull", "repository:hidden:pull/ repository:read/x:pull/pull"),
        (alice, "repository:past:pull", "repository:past:pull/"),
        (alice, "registry:catalog:*", "registry:catalog:pull,push,delete/pull,push,delete"),
        (Identity::Anonymous, "repository:public:*", "repository:public:pull,push,delete/pull"),
        (Identity::Anonymous, "repository:read/x:pull", "repository:read/x:pull/"),
        (
            Identity::Subject(DISABLED),
            "repository:own:* registry:catalog:*",
            "repository:own:pull,push,delete/ registry:catalog:pull,push,delete/",
        ),
    ] {
        assert_eq!(scopes(identity, wanted), expected, "{wanted}");
    }
}

#[test]
fn challenges_name_the_scope() {
    let v1 = tag("v1");
    for (need, expected) in [
        (Need::Pull, "repository:team/app:pull"),
        (Need::PullTag(&v1), "repository:team/app:pull"),
        (Need::List, "repository:team/app:pull"),
        (Need::Push, "repository:team/app:pull,push"),
        (Need::Delete, "repository:team/app:delete"),
        (Need::DeleteTag(&v1), "repository:team/app:delete"),
    ] {
        let refusal = decide(&none(), "team/app", need).unwrap_err();
        assert_eq!(refusal, Refusal::Challenge { scope: Some(expected.to_owned()), error: None });
    }
    let refusal = authorize_catalog(&rules(), &none(), NOW).unwrap_err();
    assert_eq!(refusal, Refusal::Challenge { scope: Some("registry:catalog:*".to_owned()), error: None });
}

#[test]
fn tag_patterns_bind_by_tag_only() {
    let v1 = tag("v1.0");
    for (text, expected) in [("v1.0", "ok"), ("latest", "ok"), ("v2.0", "403"), ("dev-1", "403")] {
        assert_eq!(answer(&decide(&basic(ALICE), "tags/app", Need::PullTag(&tag(text)))), expected, "{text}");
    }
    for (need, expected) in [(Need::Pull, "ok"), (Need::List, "ok"), (Need::Push, "ok"), (Need::Delete, "403")] {
        assert_eq!(answer(&decide(&basic(ALICE), "tags/app", need)), expected, "{need:?}");
    }
    assert_eq!(answer(&decide(&basic(ALICE), "tags/app", Need::DeleteTag(&v1))), "403");
    assert_eq!(answer(&decide(&basic(ALICE), "tags/app", Need::DeleteTag(&tag("tmp")))), "ok");

    let access = decide(&basic(ALICE), "tags/app", Need::Push).unwrap();
    for (verb, text, expected) in [
        (Verb::List, "v1.0", true),
        (Verb::List, "dev-1", false),
        (Verb::TagCreate, "dev-1", true),
        (Verb::TagMove, "dev-", true),
        (Verb::TagCreate, "v1.0", false),
        (Verb::TagMove, "latest", false),
        (Verb::TagDelete, "tmp", true),
        (Verb::TagDelete, "dev-1", false),
    ] {
        assert_eq!(access.may_tag(verb, &tag(text)), expected, "{verb} {text}");
    }
    // b06, b07: who may only create never moves.
    let access = decide(&basic(ROBOT), "payments/api", Need::Push).unwrap();
    assert!(access.may_tag(Verb::TagCreate, &tag("latest")) && !access.may_tag(Verb::TagMove, &tag("latest")));
}

#[test]
fn mount_source_by_grants() {
    let (rules, alice) = (rules(), Identity::Subject(ALICE));
    for caller in [basic(ALICE), bearer(&rules, alice, &["repository:write/a:pull,push"])] {
        let target = authorize(&rules, &caller, &name("write/a"), Need::Push, NOW).unwrap();
        for (repository, expected) in [
            ("read/a", Some(false)),
            ("write/b", Some(true)),
            ("own", Some(true)),
            ("public", Some(false)),
            ("hidden", None),
            ("listed", None),
            ("pushed", None),
            ("past", None),
        ] {
            let source = target.source(&name(repository));
            assert_eq!(source.as_ref().map(|source| source.may(Verb::Push)), expected, "{repository}");
            if let Some(source) = source {
                assert!(
                    source.may(Verb::Pull) && !source.may(Verb::Delete) && source.repository() == &name(repository)
                );
            }
        }
    }
    let reader = authorize(&rules, &basic(ALICE), &name("read/a"), Need::Pull, NOW).unwrap();
    assert!(reader.source(&name("read/a")).is_none());
    assert!(Access::system(name("a"), "task".to_owned()).source(&name("b")).is_none());
}

#[test]
fn denials_name_the_verb_and_the_command() {
    let (v2, rules) = (tag("v2"), rules());
    let reason = |caller: &Arc<Caller>, repository: &str, need| match decide(caller, repository, need) {
        Err(Refusal::Denied { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let run = "an administrator can run: portcullis grant add";
    for (caller, repository, need, expected) in [
        (
            basic(ALICE),
            "read/a",
            Need::Push,
            format!("user:alice may not push to read/a: needs verb push; {run} user:alice writer read/a"),
        ),
        (
            basic(ALICE),
            "write/a",
            Need::Delete,
            format!("user:alice may not delete from write/a: needs verb delete; {run} user:alice maintainer write/a"),
        ),
        (
            basic(ROBOT),
            "payments/api",
            Need::Pull,
            format!(
                "robot:payments.ci may not pull from payments/api: needs verb pull; {run} robot:payments.ci reader payments/api"
            ),
        ),
        (
            basic(ALICE),
            "tags/app",
            Need::PullTag(&v2),
            format!(
                "user:alice may not pull tag v2 of tags/app: needs verb pull; {run} user:alice reader tags/app --tags v2"
            ),
        ),
        (
            basic(ALICE),
            "write/a",
            Need::DeleteTag(&v2),
            format!(
                "user:alice may not delete tag v2 of write/a: needs verb tag-delete; {run} user:alice maintainer write/a"
            ),
        ),
        (
            bearer(&rules, Identity::Anonymous, &["repository:public:pull,push"]),
            "public",
            Need::Push,
            "anonymous may not push to public: needs verb push, which only users and robots can have; log in first"
                .to_owned(),
        ),
    ] {
        assert_eq!(reason(&caller, repository, need), expected);
    }
    let access = decide(&basic(ROBOT), "payments/api", Need::Push).unwrap();
    assert_eq!(
        access.denial(Verb::TagMove, Some(&v2)),
        format!(
            "robot:payments.ci may not move tag v2 in payments/api: needs verb tag-move; {run} robot:payments.ci writer payments/api"
        )
    );
}

#[test]
fn catalog() {
    let (rules, alice) = (rules(), Identity::Subject(ALICE));
    for (caller, expected) in [
        (none(), "401"),
        (caller(Identity::Anonymous, Credential::Basic), "401"),
        (caller(Identity::Anonymous, Credential::Socket), "401"),
        (basic(ALICE), "ok"),
        (basic(NOBODY), "ok"),
        (basic(DISABLED), "401"),
        (bearer(&rules, alice, &["registry:catalog:*"]), "ok"),
        (bearer(&rules, Identity::Anonymous, &["registry:catalog:*"]), "ok"),
        (bearer(&rules, alice, &["registry:catalog:pull"]), "401 insufficient_scope"),
        (bearer(&rules, alice, &["repository:read/a:*"]), "401 insufficient_scope"),
        (bearer(&rules, Identity::Subject(EXPIRED), &["registry:catalog:*"]), "401 invalid_token"),
    ] {
        assert_eq!(answer(&authorize_catalog(&rules, &caller, NOW)), expected, "{caller:?}");
    }
    let access = authorize_catalog(&rules, &basic(ALICE), NOW).unwrap();
    let starts: Vec<&str> = access.ranges().iter().map(|range| range.start.as_str()).collect();
    assert_eq!(starts, ["future", "listed", "own", "public", "read/", "tags/app", "write/"]);
    for (repository, expected) in
        [("read/a", true), ("tags/app", true), ("tags/b", false), ("pushed", false), ("past", false), ("public", true)]
    {
        assert_eq!(access.may_list(&name(repository)), expected, "{repository}");
    }
    let ranges = authorize_catalog(&rules, &basic(NOBODY), NOW).unwrap().ranges().to_vec();
    assert_eq!(ranges, [RepositoryPattern::parse("public").unwrap().range()]);
}

#[test]
fn admin() {
    let (rules, admin) = (rules(), Identity::Subject(ADMIN));
    for (caller, expected) in [
        (none(), "401"),
        (caller(Identity::Anonymous, Credential::Socket), "ok"),
        (caller(Identity::Anonymous, Credential::Basic), "401"),
        (basic(ADMIN), "ok"),
        (basic(ALICE), "403"),
        (basic(DISABLED), "401"),
        (basic(EXPIRED), "401"),
        (basic(REMOVED), "401"),
        (bearer(&rules, admin, &[]), "ok"),
        (bearer(&rules, admin, &["repository:a:pull"]), "401 insufficient_scope"),
        (bearer(&rules, Identity::Subject(ALICE), &[]), "403"),
        (bearer(&rules, Identity::Anonymous, &[]), "403"),
        (bearer(&rules, Identity::Subject(DISABLED), &[]), "401 invalid_token"),
    ] {
        assert_eq!(answer(&authorize_admin(&rules, &caller, NOW)), expected, "{caller:?}");
    }
    let access = authorize_admin(&rules, &basic(ADMIN), NOW).unwrap();
    assert_eq!((access.label(), access.subject_id()), ("user:admin".to_owned(), Some(ADMIN)));
    let repository = access.repository(&name("read/a"));
    let held: Vec<Verb> = Verb::ALL.into_iter().filter(|verb| repository.may(*verb)).collect();
    assert_eq!(held, [Verb::List, Verb::TagDelete, Verb::Delete]);
    assert_eq!(repository.label(), "user:admin");
    let socket = caller(Identity::Anonymous, Credential::Socket);
    assert_eq!(authorize_admin(&rules, &socket, NOW).unwrap().label(), "socket");
    let system = Access::system(name("a"), "task-1".to_owned());
    assert_eq!((system.label(), system.subject_id()), ("system".to_owned(), None));
    assert!(Verb::ALL.into_iter().all(|verb| system.may(verb) && system.may_tag(verb, &tag("x"))));
}

#[test]
fn subjects_are_found() {
    let rules = rules();
    assert_eq!(rules.epoch(), 7);
    assert_eq!(rules.subject_by_name("payments.ci").map(|subject| subject.id), Some(ROBOT));
    assert_eq!(rules.subject_by_name("disabled").map(|subject| subject.disabled), Some(true));
    assert!(rules.subject_by_name("ghost").is_none() && rules.subject(REMOVED).is_none());
}

/// Grants to Alice and to everybody on patterns over a small alphabet, so that many match.
fn grants() -> impl Strategy<Value = Vec<Grant>> {
    let one =
        ("([ab]?\\*?[ab]|\\*)(/([ab]?\\*?|[ab]))?(/\\*\\*)?|\\*\\*", 0..128_u8, any::<bool>(), any::<bool>(), 0..3_u8);
    let one = one.prop_filter_map("a pattern", |(pattern, verbs, anonymous, expires, tags)| {
        let verbs = Verb::ALL.into_iter().filter(|verb| verbs & (1 << *verb as u8) != 0);
        let grant = Grant {
            id: 0,
            grantee: if anonymous { Grantee::Anonymous } else { Grantee::Subject(ALICE) },
            verbs: verbs.fold(Verbs::NONE, |all, verb| all.union(Verbs::of(&[verb]))),
            repository: RepositoryPattern::parse(&pattern).ok()?,
            tags: Vec::new(),
            expires_at: expires.then_some(NOW),
        };
        Some(if tags == 0 { tagged(grant, &["v*"]) } else { grant })
    });
    proptest::collection::vec(one, 0..8)
}

/// All names of one to three components over the same alphabet.
fn names() -> Vec<RepositoryName> {
    let one = ["a", "b", "aa", "ab", "ba", "a-b"];
    let two = one.iter().flat_map(|x| one.iter().map(move |y| format!("{x}/{y}")));
    let three = one.iter().map(|x| format!("a/{x}/b"));
    one.iter().map(|x| (*x).to_owned()).chain(two).chain(three).map(|text| name(&text)).collect()
}

proptest! {
    /// The compiled rules decide as a scan of all grants does.
    #[test]
    fn decisions_are_those_of_a_scan(grants in grants()) {
        let rules = Arc::new(Rules::new(1, vec![subject(ALICE, "alice")], grants.clone()));
        let (v1, other) = (tag("v1"), tag("x"));
        for name in names() {
            let matching: Vec<&Grant> =
                grants.iter().filter(|grant| grant.expires_at.is_none() && grant.repository.matches(&name)).collect();
            let verbs = |grant: &Grant| match grant.grantee {
                Grantee::Anonymous => grant.verbs.intersection(Verbs::READ),
                Grantee::Subject(_) => grant.verbs,
            };
            let holds = |verb| matching.iter().any(|grant| verbs(grant).contains(verb));
            let holds_tag = |verb, tag: &Tag| {
                matching.iter().any(|g| verbs(g).contains(verb) && (g.tags.is_empty() || g.tags.iter().any(|p| p.matches(tag))))
            };
            let sees = Verb::ALL.into_iter().any(holds);
            for (need, held) in [
                (Need::Pull, holds(Verb::Pull)),
                (Need::List, holds(Verb::List)),
                (Need::Push, holds(Verb::Push)),
                (Need::Delete, holds(Verb::Delete)),
                (Need::PullTag(&v1), holds_tag(Verb::Pull, &v1)),
                (Need::PullTag(&other), holds_tag(Verb::Pull, &other)),
                (Need::DeleteTag(&other), holds_tag(Verb::TagDelete, &other)),
            ] {
                let expected = if held { "ok" } else if sees { "403" } else { "404" };
                let decision = authorize(&rules, &basic(ALICE), &name, need, NOW);
                prop_assert_eq!(answer(&decision), expected, "{:?} {}", need, name);
                if let Ok(access) = decision {
                    for verb in Verb::ALL {
                        prop_assert_eq!(access.may(verb), holds(verb));
                        prop_assert_eq!(access.may_tag(verb, &v1), holds_tag(verb, &v1));
                    }
                }
            }
        }
    }

    /// Looking through the ranges and asking about each name finds what a filter over all names finds, once and in order.
    #[test]
    fn catalog_is_a_filter(grants in grants()) {
        let rules = Arc::new(Rules::new(1, vec![subject(ALICE, "alice")], grants.clone()));
        let access = authorize_catalog(&rules, &basic(ALICE), NOW).unwrap();
        let mut all = names();
        all.sort();
        let found: Vec<&RepositoryName> = access
            .ranges()
            .iter()
            .flat_map(|range| all.iter().filter(|name| range.contains(name.as_str())))
            .filter(|name| access.may_list(name))
            .collect();
        let expected: Vec<&RepositoryName> = all
            .iter()
            .filter(|name| {
                grants.iter().any(|g| g.expires_at.is_none() && g.verbs.contains(Verb::List) && g.repository.matches(name))
            })
            .collect();
        prop_assert_eq!(found, expected);
        for pair in access.ranges().windows(2) {
            prop_assert!(pair[0].end.as_ref().is_some_and(|end| *end < pair[1].start));
        }
    }
}
