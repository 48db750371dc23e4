//! Tokens. The first byte says what is tried: claims of ours that survive their encoding, an edited token, any text, or any
//! claims under our own signature.

use oci::{Actions, RepositoryName, Resource, Timestamp};
use policy::{Scope, SubjectId, TokenScopes};
use serde_json::Value;
use server::auth::{TokenKey, TokenKeys};
use server::fuzzing::{Holder, MAX_TOKEN, Token, Use, sign_claims};

use crate::Input;

const STORE: &str = "store-1";
const NOW: Timestamp = Timestamp(1_800_000_000_000);
const USES: [Use; 4] = [Use::Access, Use::Refresh, Use::Admin, Use::AdminRefresh];

// security, B-03
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let keys = TokenKeys::new(STORE, TokenKey::new("k1", &[7; 32]), vec![TokenKey::new("k0", &[6; 32])]);
    match input.below(4) {
        0 => ours(&keys, input),
        1 => edited(&keys, input),
        2 => {
            let text = String::from_utf8_lossy(input.rest());
            assert!(USES.iter().all(|usage| keys.verify(&text, *usage, NOW).is_none()), "{text}");
        }
        _ => claims(&keys, input.rest()),
    }
}

fn token(input: &mut Input<'_>) -> Token {
    let actions = |bits: u8| Actions { pull: bits & 1 > 0, push: bits & 2 > 0, delete: bits & 4 > 0 };
    let usage = USES[input.below(4)];
    let issued_at = Timestamp(NOW.0 + i64::from(input.byte()) * 1000 - 200_000);
    let expires_at = Timestamp(issued_at.0 + i64::try_from(input.short()).unwrap() * 10);
    let id = i64::from(input.byte());
    let name = input.text_line();
    let holder =
        (id > 0 && !name.is_empty()).then(|| Holder { id: SubjectId(id), name, epoch: i64::from(input.byte()) - 100 });
    let mut scopes = Vec::new();
    while !input.is_empty() && scopes.len() < 40 {
        let (asked, granted) = (actions(input.byte()), actions(input.byte()));
        let resource = match RepositoryName::parse(&input.text_line()) {
            Ok(name) => Resource::Repository(name),
            Err(_) => Resource::Catalog,
        };
        let all = |actions: Actions| if actions == Actions::ALL { actions } else { Actions::NONE };
        scopes.push(match resource {
            Resource::Catalog => Scope { resource, asked: all(asked), granted: all(granted) },
            Resource::Repository(_) => Scope { resource, asked, granted },
        });
    }
    Token { usage, holder, id: "1".to_owned(), issued_at, expires_at, scopes: TokenScopes(scopes) }
}

fn ours(keys: &TokenKeys, mut input: Input<'_>) {
    let token = token(&mut input);
    let text = keys.sign(&token);
    assert!(http::HeaderValue::from_str(&text).is_ok());
    let seconds = |time: Timestamp| Timestamp(time.seconds() * 1000);
    // A minute either way, for the clocks of others.
    let valid = text.len() <= MAX_TOKEN
        && seconds(token.issued_at).0 <= NOW.0 + 60_000
        && seconds(token.expires_at).0 + 60_000 > NOW.0;
    for usage in USES {
        let found = keys.verify(&text, usage, NOW);
        assert_eq!(found.is_some(), valid && usage == token.usage);
        let Some(found) = found else { continue };
        assert_eq!((&found.holder, &found.id, found.usage), (&token.holder, &token.id, token.usage));
        assert_eq!((found.issued_at, found.expires_at), (seconds(token.issued_at), seconds(token.expires_at)));
        assert_eq!(found.scopes.0, token.scopes.0);
    }
    let others = [
        TokenKeys::new("store-2", TokenKey::new("k1", &[7; 32]), Vec::new()),
        TokenKeys::new(STORE, TokenKey::new("k1", &[8; 32]), Vec::new()),
        TokenKeys::new(STORE, TokenKey::new("k2", &[7; 32]), Vec::new()),
    ];
    assert!(others.iter().all(|others| others.verify(&text, token.usage, NOW).is_none()));
}

/// One byte more, less or other anywhere, and the token is none.
fn edited(keys: &TokenKeys, mut input: Input<'_>) {
    let (at, edit, byte) = (input.short(), input.below(3), input.byte() % 128);
    let token = token(&mut input);
    let signed = keys.sign(&token);
    let mut text = signed.clone().into_bytes();
    let at = at % text.len();
    match edit {
        0 => text[at] = byte,
        1 => text.insert(at, byte),
        _ => drop(text.remove(at)),
    }
    let text = String::from_utf8(text).unwrap();
    if text != signed {
        assert!(USES.iter().all(|usage| keys.verify(&text, *usage, NOW).is_none()), "{text}");
    }
}

/// Claims that verify say everything, once, and are ours; a key more or less and they would not.
fn claims(keys: &TokenKeys, claims: &[u8]) {
    let text = sign_claims(keys, claims);
    for usage in USES {
        let Some(found) = keys.verify(&text, usage, NOW) else { continue };
        let Ok(Value::Object(map)) = serde_json::from_slice::<Value>(claims) else {
            panic!("claims that are no object")
        };
        let mut names: Vec<&str> = map.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["access", "aud", "epoch", "exp", "iat", "iss", "jti", "nbf", "sid", "sub", "use"]);
        assert_eq!((map["iss"].as_str(), map["aud"].as_str()), (Some(STORE), Some(STORE)));
        assert_eq!(serde_json::from_value::<Use>(map["use"].clone()).unwrap(), usage);
        let seconds = |name: &str| i64::try_from(map[name].as_u64().unwrap()).unwrap();
        assert!(seconds("exp") * 1000 + 60_000 > NOW.0 && seconds("nbf") * 1000 <= NOW.0 + 60_000);
        assert!(seconds("iat") * 1000 <= NOW.0 + 60_000);
        match &found.holder {
            Some(holder) => {
                assert!(holder.id.0 > 0 && !holder.name.is_empty());
                assert_eq!((map["sid"].as_i64(), map["sub"].as_str()), (Some(holder.id.0), Some(holder.name.as_str())));
            }
            None => assert_eq!((map["sid"].as_i64(), map["sub"].as_str()), (Some(0), Some(""))),
        }
        assert_eq!(found.scopes.0.len(), map["access"].as_array().unwrap().len());
        // What was read is written as the same again.
        let again = keys.verify(&keys.sign(&found), usage, NOW).unwrap();
        assert_eq!((again.scopes.0, again.holder), (found.scopes.0, found.holder));
    }
}
