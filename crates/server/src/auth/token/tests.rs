use serde_json::{Value, json};

use super::*;

const ALL: [Use; 4] = [Use::Access, Use::Refresh, Use::Admin, Use::AdminRefresh];
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn keys() -> TokenKeys {
    TokenKeys::new("store-1", TokenKey::new("k2", &[2; 32]), vec![TokenKey::new("k1", &[1; 32])])
}

fn token(usage: Use) -> Token {
    let all = Actions { pull: true, push: true, delete: true };
    let pull = Actions { pull: true, push: false, delete: false };
    Token {
        usage,
        holder: Some(Holder { id: SubjectId(7), name: "alice".to_owned(), epoch: 3 }),
        id: "t1".to_owned(),
        issued_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(900)),
        scopes: TokenScopes(vec![
            Scope { resource: Resource::Repository(RepositoryName::parse("a/b").unwrap()), asked: all, granted: pull },
            Scope { resource: Resource::Catalog, asked: all, granted: all },
        ]),
    }
}

/// Signs these parts with a key of the store, as only the store itself could.
fn forge(key: &TokenKey, header: &str, claims: &[u8]) -> String {
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key.key, message.as_bytes()).as_ref()))
}

fn claims() -> Value {
    let signed = keys().sign(&token(Use::Access));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn accepts(text: &str) -> bool {
    keys().verify(text, Use::Access, NOW).is_some()
}

#[test]
fn comes_back_as_it_was_signed() {
    for usage in ALL {
        let signed = keys().sign(&token(usage));
        let read = keys().verify(&signed, usage, NOW).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", token(usage)));
    }
    let anonymous = Token { holder: None, scopes: TokenScopes(Vec::new()), ..token(Use::Access) };
    assert_eq!(keys().verify(&keys().sign(&anonymous), Use::Access, NOW).unwrap().holder, None);
}

#[test]
fn one_use_is_not_the_other() {
    for signed in ALL {
        for shown in ALL {
            let read = keys().verify(&keys().sign(&token(signed)), shown, NOW);
            assert_eq!(read.is_some(), signed == shown, "{signed:?} as {shown:?}");
        }
    }
}

#[test]
fn retired_keys_verify_until_they_are_removed() {
    let old = TokenKeys::new("store-1", TokenKey::new("k1", &[1; 32]), Vec::new());
    assert!(accepts(&old.sign(&token(Use::Access))));
    let only_new = TokenKeys::new("store-1", TokenKey::new("k2", &[2; 32]), Vec::new());
    assert!(only_new.verify(&old.sign(&token(Use::Access)), Use::Access, NOW).is_none());
    let elsewhere = TokenKeys::new("store-2", TokenKey::new("k2", &[2; 32]), Vec::new());
    assert!(!accepts(&elsewhere.sign(&token(Use::Access))));
}

#[test]
fn lives_between_its_times_with_a_minute_of_leeway() {
    let signed = keys().sign(&token(Use::Access));
    let at = |seconds: i64| keys().verify(&signed, Use::Access, Timestamp(NOW.0 + seconds * 1000)).is_some();
    for (seconds, valid) in [(-61, false), (-60, true), (0, true), (900, true), (959, true), (960, false)] {
        assert_eq!(at(seconds), valid, "{seconds}");
    }
}

// security: A-07
#[test]
fn a07_keys_in_the_header_are_not_looked_at() {
    let own = TokenKey::new("k2", &[9; 32]);
    let body = serde_json::to_vec(&claims()).unwrap();
    for extra in ["jwk", "jku", "x5u", "x5c"] {
        let header = json!({ "alg": "HS256", "typ": "JWT", "kid": "k2", extra: "https://example.org/key" }).to_string();
        assert!(!accepts(&forge(&own, &URL_SAFE_NO_PAD.encode(&header), &body)), "{extra}");
        // Not even when the store's own key signed it: the header is not that of a key.
        assert!(!accepts(&forge(&keys().keys[0], &URL_SAFE_NO_PAD.encode(&header), &body)), "{extra}");
    }
    assert!(!accepts(&forge(&own, &own.header, &body)));
}

// security: A-08
#[test]
fn a08_no_other_algorithm_and_no_empty_signature() {
    let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap());
    for header in [
        json!({ "alg": "none", "typ": "JWT" }),
        json!({ "alg": "None", "typ": "JWT", "kid": "k2" }),
        json!({ "alg": "ES256", "typ": "JWT", "kid": "k2" }),
        json!({ "alg": "HS512", "typ": "JWT", "kid": "k2" }),
    ] {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        for mac in ["".to_owned(), URL_SAFE_NO_PAD.encode([0; 32]), URL_SAFE_NO_PAD.encode([0; 64])] {
            assert!(!accepts(&format!("{header}.{body}.{mac}")));
        }
    }
    let header = &keys().keys[0].header;
    for mac in ["", "AA", &URL_SAFE_NO_PAD.encode([0; 32])] {
        assert!(!accepts(&format!("{header}.{body}.{mac}")));
    }
    let good = keys().sign(&token(Use::Access));
    assert!(accepts(&good));
    for bad in [format!("{good}="), format!(" {good}"), format!("{good}.x"), good[..good.len() - 1].to_owned()] {
        assert!(!accepts(&bad));
    }
}

// security: A-10
#[test]
fn a10_every_claim_is_required_and_of_its_type() {
    let key = &keys().keys[0];
    let signed = |claims: &str| accepts(&forge(key, &key.header, claims.as_bytes()));
    assert!(signed(&claims().to_string()));
    let all: Vec<String> = claims().as_object().unwrap().keys().cloned().collect();
    for name in &all {
        let mut without = claims();
        without.as_object_mut().unwrap().remove(name);
        assert!(!signed(&without.to_string()), "without {name}");
        for odd in [json!(null), json!("1800000000x"), json!(1.5), json!(-1), json!([]), json!({ "a": 1 })] {
            if (name == "access" && odd == json!([])) || (name == "epoch" && odd == json!(-1)) {
                continue;
            }
            if matches!(name.as_str(), "jti" | "sub") && odd.is_string() {
                continue;
            }
            let mut with = claims();
            with[name] = odd.clone();
            assert!(!signed(&with.to_string()), "{name} = {odd}");
        }
    }
    for time in ["exp", "nbf", "iat"] {
        let text = claims().to_string();
        let number = claims()[time].to_string();
        for odd in ["18446744073709551616", "18446744073709551615", "9223372036854775807", "1e10", "\"1800000900\""] {
            let changed = text.replace(&format!("\"{time}\":{number}"), &format!("\"{time}\":{odd}"));
            assert_ne!(changed, text);
            assert!(!signed(&changed), "{time} = {odd}");
        }
    }
    for (name, odd) in [
        ("aud", json!(["store-1"])),
        ("aud", json!("store-2")),
        ("iss", json!("store-2")),
        ("sub", json!("")),
        ("sid", json!(0)),
        ("access", json!([[]])),
        ("access", json!([{ "type": "repository", "name": "A", "actions": [], "asked": [] }])),
        ("access", json!([{ "type": "repository", "name": "a", "actions": ["fly"], "asked": [] }])),
        ("access", json!([{ "type": "repository", "name": "a", "actions": "pull", "asked": [] }])),
        ("access", json!([{ "type": "admin", "name": "a", "actions": [], "asked": [] }])),
    ] {
        let mut with = claims();
        with[name] = odd.clone();
        assert!(!signed(&with.to_string()), "{name} = {odd}");
    }
    let nested = claims().to_string().replace("\"access\":[", &format!("\"access\":[{}", "[".repeat(5000)));
    assert!(!signed(&nested));
    let twice = claims().to_string().replacen('{', "{\"exp\":99999999999,", 1);
    assert!(!signed(&twice));
}

// security: A-11
#[test]
fn a11_nothing_but_three_parts_of_bounded_length() {
    let good = keys().sign(&token(Use::Access));
    for bad in [
        ".".repeat(1 << 20),
        "a".repeat(MAX_TOKEN + 1),
        format!("{good}.{good}"),
        format!("{good}.."),
        // Five parts: the form of an encrypted token.
        "e30.e30.e30.e30.e30".to_owned(),
        String::new(),
        "..".to_owned(),
    ] {
        assert!(!accepts(&bad));
    }
    let key = &keys().keys[0];
    let zipped = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT","kid":"k2","zip":"DEF"}"#);
    assert!(!accepts(&forge(key, &zipped, claims().to_string().as_bytes())));
    // A token as the claims of a token.
    assert!(!accepts(&forge(key, &key.header, good.as_bytes())));
}
