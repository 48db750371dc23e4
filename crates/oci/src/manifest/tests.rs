use proptest::prelude::*;

use super::*;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn digest(content: &str) -> Digest {
    Hasher::digest(Algorithm::Sha256, content.as_bytes())
}

/// A descriptor of `content`, with more fields.
fn desc(media_type: &str, content: &str, more: &str) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}{more}}}"#, digest(content), content.len())
}

fn config() -> String {
    desc(MediaType::OCI_CONFIG, "config", "")
}

fn image(more: &str) -> String {
    let (config, layer) = (config(), desc(LAYER, "layer", ""));
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{more}}}"#)
}

fn parse(body: &str) -> Result<Manifest, Error> {
    Manifest::parse(body.as_bytes(), None)
}

fn refused(body: &str) -> String {
    let error = parse(body).expect_err(&body.chars().take(300).collect::<String>());
    assert_eq!(error.code, ErrorCode::ManifestInvalid, "{body}");
    error.message
}

#[test]
fn an_image() {
    let body = image(&format!(
        r#","mediaType":"{}","annotations": {{ "k" : "v" }},"subject":{},"unknown":{{"Layers":1,"Layers":2}}"#,
        MediaType::OCI_MANIFEST,
        desc(MediaType::OCI_MANIFEST, "subject", "")
    ));
    let manifest = Manifest::parse(body.as_bytes(), Some("application/vnd.oci.image.manifest.v1+json; x=y")).unwrap();
    assert_eq!(manifest.kind, ManifestKind::Image);
    assert_eq!(manifest.media_type.as_str(), MediaType::OCI_MANIFEST);
    assert_eq!(manifest.config.as_ref().map(|c| &c.digest), Some(&digest("config")));
    assert_eq!(manifest.layers.iter().map(|l| (&l.digest, l.size)).collect::<Vec<_>>(), [(&digest("layer"), 5)]);
    assert_eq!(manifest.subject.as_ref().map(|s| &s.digest), Some(&digest("subject")));
    assert_eq!(manifest.annotations.as_deref(), Some(r#"{ "k" : "v" }"#));
    assert_eq!(manifest.artifact_type.as_deref(), Some(MediaType::OCI_CONFIG));
    assert_eq!(manifest.required(), [digest("config"), digest("layer")]);
}

#[test]
fn q39_media_type_of_header_then_body_then_shape() {
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    let stated = |kind: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","manifests":[]}}"#);
    for (body, header, expected) in [
        (index.to_owned(), None, MediaType::OCI_INDEX),
        (index.to_owned(), Some(""), MediaType::OCI_INDEX),
        (index.to_owned(), Some(MediaType::DOCKER_LIST), MediaType::DOCKER_LIST),
        (stated(MediaType::DOCKER_LIST), None, MediaType::DOCKER_LIST),
        (stated(""), None, MediaType::OCI_INDEX),
        (stated("application/vnd.x"), Some("Application/vnd.X; q=1"), "Application/vnd.X"),
        (r#"{"manifests":[]}"#.to_owned(), Some("application/vnd.x"), "application/vnd.x"),
        (image(""), None, MediaType::OCI_MANIFEST),
        (image(""), Some(MediaType::DOCKER_MANIFEST), MediaType::DOCKER_MANIFEST),
        (r#"{"blobs":[]}"#.to_owned(), None, MediaType::OCI_ARTIFACT),
        (r#"{}"#.to_owned(), Some(MediaType::OCI_ARTIFACT), MediaType::OCI_ARTIFACT),
    ] {
        let manifest = Manifest::parse(body.as_bytes(), header).unwrap();
        assert_eq!(manifest.media_type.as_str(), expected, "{body} {header:?}");
    }
}

#[test]
fn q38_q40_g01_g02_confusion() {
    let (config, layer) = (config(), desc(LAYER, "layer", ""));
    for both in [
        image(r#","manifests":[]"#),
        image(r#","manifests":null"#),
        image(r#","blobs":[]"#),
        format!(r#"{{"schemaVersion":2,"manifests":[],"config":{config}}}"#),
        format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[{layer}]}}"#),
        r#"{"schemaVersion":2,"manifests":[],"config":null}"#.to_owned(),
        r#"{"manifests":[],"blobs":[]}"#.to_owned(),
    ] {
        for header in [None, Some(MediaType::OCI_MANIFEST), Some(MediaType::OCI_INDEX), Some("application/vnd.x")] {
            let error = Manifest::parse(both.as_bytes(), header).unwrap_err();
            assert_eq!(error.code, ErrorCode::ManifestInvalid);
        }
    }
    let index = r#"{"schemaVersion":2,"manifests":[]}"#.to_owned();
    for (body, header) in [
        (image(""), MediaType::OCI_INDEX),
        (index.clone(), MediaType::OCI_MANIFEST),
        (index.clone(), MediaType::OCI_ARTIFACT),
        (image(&format!(r#","mediaType":"{}""#, MediaType::OCI_MANIFEST)), MediaType::DOCKER_MANIFEST),
        (image(r#","mediaType":"application/vnd.x""#), "application/vnd.y"),
        (index.clone(), "text/html"),
        (index.clone(), "nonsense"),
        (index.clone(), MediaType::DOCKER_SCHEMA1),
        (index, MediaType::DOCKER_SCHEMA1_SIGNED),
        (r#"{"schemaVersion":2}"#.to_owned(), "application/vnd.x"),
        ("{}".to_owned(), MediaType::OCI_INDEX),
        ("{}".to_owned(), MediaType::OCI_MANIFEST),
    ] {
        let error = Manifest::parse(body.as_bytes(), Some(header)).expect_err(&format!("{body} {header}"));
        assert_eq!(error.code, ErrorCode::ManifestInvalid, "{body} {header}");
    }
    assert!(refused(r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#).contains("schema 1"));
    assert!(refused(&image(r#","fsLayers":[]"#)).contains("schema 1"));
    assert!(refused(&format!(r#"{{"mediaType":"{}"}}"#, MediaType::DOCKER_SCHEMA1)).contains("schema 1"));
}

#[test]
fn q42_shapes_that_must_pass() {
    let empty = desc(MediaType::OCI_EMPTY, "{}", r#","data":"e30=""#);
    for (body, layers, required) in [
        (format!(r#"{{"schemaVersion":2,"config":{empty},"layers":[]}}"#), 0, 0),
        (format!(r#"{{"schemaVersion":2,"config":{empty}}}"#), 0, 0),
        (format!(r#"{{"schemaVersion":2,"config":{empty},"layers":null,"subject":null,"annotations":null}}"#), 0, 0),
        (format!(r#"{{"schemaVersion":2,"config":{empty},"layers":[{empty}],"artifactType":"a/b"}}"#), 1, 0),
        (format!(r#"{{"schemaVersion":2,"config":{},"layers":[{empty}]}}"#, config()), 1, 1),
    ] {
        let manifest = parse(&body).unwrap();
        assert_eq!((manifest.layers.len(), manifest.required().len()), (layers, required), "{body}");
    }
    assert_eq!(parse(r#"{"schemaVersion":2,"manifests":null}"#).unwrap().children, []);
    assert!(is_empty_json(&Hasher::digest(Algorithm::Sha512, EMPTY_JSON)));
    assert!(!is_empty_json(&Hasher::digest(Algorithm::Sha512, b"[]")));
}

#[test]
fn q43_required_leaves_out_what_is_not_distributed() {
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let layers = [
        desc(LAYER, "a", ""),
        desc(LAYER, "a", ""),
        desc(LAYER, "b", r#","urls":["https://example.com/b"]"#),
        desc(LAYER, "c", r#","urls":[]"#),
        desc(LAYER, "d", r#","urls":null"#),
        desc(foreign, "e", ""),
    ];
    let body = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, config(), layers.join(","));
    let manifest = parse(&body).unwrap();
    assert_eq!(manifest.layers.len(), 6);
    assert_eq!(manifest.required(), [digest("config"), digest("a"), digest("c"), digest("d")]);
    let artifact = format!(r#"{{"artifactType":"x/y","blobs":[{}]}}"#, layers[0]);
    assert_eq!(parse(&artifact).unwrap().required(), [digest("a")]);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, layers[0]);
    assert_eq!(parse(&index).unwrap().required(), []);
}

#[test]
fn artifact_type_by_the_referrers_rule() {
    let index = |more: &str| format!(r#"{{"schemaVersion":2,"manifests":[]{more}}}"#);
    for (body, expected) in [
        (image(""), Some(MediaType::OCI_CONFIG)),
        (image(r#","artifactType":"a/b""#), Some("a/b")),
        (image(r#","artifactType":"""#), Some(MediaType::OCI_CONFIG)),
        (index(""), None),
        (index(r#","artifactType":"a/b""#), Some("a/b")),
        (r#"{"blobs":[],"artifactType":"a/b"}"#.to_owned(), Some("a/b")),
    ] {
        assert_eq!(parse(&body).unwrap().artifact_type.as_deref(), expected, "{body}");
    }
}

#[test]
fn g05_keys_that_come_twice_or_in_other_case() {
    let layer = |more: &str| {
        let (config, layer) = (config(), desc(LAYER, "layer", more));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#)
    };
    for bad in [
        image(r#","layers":[]"#),
        image(r#","Layers":[]"#),
        image(r#","layer\u0073":[]"#),
        image(r#","layerſ":[]"#),
        image(r#","CONFIG":{}"#),
        image(r#","schemaVersion":2"#),
        image(r#","mediatype":"x""#),
        image(r#","Manifests":[]"#),
        image(r#","annotations":{"a":"1","a":"2"}"#),
        image(r#","annotations":{"a":"1","\u0061":"2"}"#),
        layer(r#","digest":"x""#),
        layer(r#","Digest":"x""#),
        layer(r#","size":1"#),
        layer(r#","Data":"""#),
        layer(r#","URLs":[]"#),
        layer(r#","platform":{},"platform":{}"#),
    ] {
        let why = refused(&bad);
        assert!(why.contains("twice") || why.contains("must be written"), "{bad}: {why}");
    }
    for good in [
        image(r#","custom":1,"Custom":2,"custom":3,"x":{"digest":1,"Digest":2}"#),
        image(r#","annotations":{"a":"1","A":"2"}"#),
        layer(r#","x":1,"x":2,"platform":{"os":"a","OS":"b"}"#),
    ] {
        assert!(parse(&good).is_ok(), "{good}");
    }
}

#[test]
fn g05_documents_that_are_not_strict_json() {
    let good = image("");
    for bad in [
        format!("\u{FEFF}{good}"),
        format!("{good}x"),
        format!("{good}{good}"),
        format!("{good}\0"),
        format!("/*x*/{good}"),
        image(r#","x":NaN"#),
        image(r#","x":1e999"#),
        image(r#","x":"\ud800""#),
        image(r#","\u0000":1"#),
        good.replace(r#""size":5"#, r#""size":-5"#),
        good.replace(r#""size":5"#, r#""size":5.0"#),
        good.replace(r#""size":5"#, r#""size":1e999"#),
        good.replace(r#""size":5"#, r#""size":"5""#),
        good.replace(r#""size":5"#, r#""size":9223372036854775808"#),
        good.replace(r#""schemaVersion":2"#, r#""schemaVersion":2.0"#),
        good.replace(r#""schemaVersion":2"#, r#""schemaVersion":3"#),
        good.replace(r#""schemaVersion":2,"#, ""),
        String::new(),
        "[]".to_owned(),
        "null".to_owned(),
        "\"x\"".to_owned(),
    ] {
        refused(&bad);
    }
    assert!(parse(&format!(" {good}\r\n\t ")).is_ok());
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(Manifest::parse(&utf16, None).is_err());
    assert!(Manifest::parse(&[utf16.as_slice(), b"\xff\xfe"].concat(), None).is_err());
}

#[test]
fn descriptors_are_complete() {
    let (config, hex) = (config(), "0".repeat(64));
    let with = |layer: &str| format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
    assert!(parse(&with(&format!(r#"{{"mediaType":"x","digest":"sha256:{hex}","size":0}}"#))).is_ok());
    for bad in [
        "null".to_owned(),
        "{}".to_owned(),
        "\"x\"".to_owned(),
        "[]".to_owned(),
        format!(r#"{{"digest":"sha256:{hex}","size":0}}"#),
        format!(r#"{{"mediaType":"","digest":"sha256:{hex}","size":0}}"#),
        format!(r#"{{"mediaType":"a\nb","digest":"sha256:{hex}","size":0}}"#),
        format!(r#"{{"mediaType":"{}","digest":"sha256:{hex}","size":0}}"#, "x".repeat(256)),
        format!(r#"{{"mediaType":"x","digest":"sha256:{hex}"}}"#),
        r#"{"mediaType":"x","size":0}"#.to_owned(),
        r#"{"mediaType":"x","digest":"sha256:baddigeststring","size":0}"#.to_owned(),
        format!(r#"{{"mediaType":"x","digest":"sha256:{hex}","size":0,"urls":"x"}}"#),
        format!(r#"{{"mediaType":"x","digest":"sha256:{hex}","size":0,"urls":[1]}}"#),
    ] {
        refused(&with(&bad));
    }
    refused(r#"{"schemaVersion":2,"layers":[]}"#);
    refused(r#"{"schemaVersion":2,"config":null,"layers":[]}"#);
}

#[test]
fn g10_data_matches_digest_and_size() {
    let with = |content: &str, more: &str| {
        format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, config(), desc("x", content, more))
    };
    for good in [
        with("data", r#","data":"ZGF0YQ==""#),
        with("", r#","data":"""#),
        with("x", r#","data":null"#),
        with("a\u{ff}", r#","data":"Yc\u004f\/""#),
    ] {
        assert!(parse(&good).is_ok(), "{good}");
    }
    for bad in [
        with("data", r#","data":"ZGF0YX==""#),
        with("data", r#","data":"ZGF0YQ""#),
        with("data", r#","data":"ZGF0 YQ==""#),
        with("data", r#","data":"b3RoZQ==""#),
        with("data", r#","data":"""#),
        with("data", r#","data":[1]"#),
        with("data", r#","data":"ZGF0YQ==""#).replace(r#""size":4"#, r#""size":5"#),
    ] {
        refused(&bad);
    }
}

#[test]
fn g06_g11_limits() {
    let layer = desc(LAYER, "layer", "");
    let lists = |name: &str, count: usize| {
        let config = if name == "layers" { format!(r#","config":{}"#, config()) } else { String::new() };
        format!(r#"{{"schemaVersion":2{config},"{name}":[{}]}}"#, vec![layer.as_str(); count].join(","))
    };
    for name in ["layers", "manifests", "blobs"] {
        assert!(parse(&lists(name, 10_000)).is_ok());
        assert!(refused(&lists(name, 10_001)).contains("more than 10000"));
    }
    refused(&format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, vec!["{}"; 1_000_000].join(",")));
    refused(&image(&format!(r#","x":{}"#, "[".repeat(1 << 20))));
    refused(&image(&format!(r#","x":{}{}"#, "[".repeat(64), "]".repeat(64))));

    // Exactly the limit, and one byte more.
    let mut body = image("").into_bytes();
    body.resize(Manifest::MAX_BYTES, b' ');
    assert!(Manifest::parse(&body, None).is_ok());
    body.push(b' ');
    assert_eq!(Manifest::parse(&body, None).unwrap_err().code, ErrorCode::SizeInvalid);
}

#[test]
fn q53_g15_annotations() {
    let annotated = |annotations: &str| image(&format!(r#","annotations":{{{annotations}}}"#));
    // As the conformance suite's "large-manifest".
    let large: Vec<String> = (0..390).map(|i| format!(r#""org.example.{i}":"{}""#, "x".repeat(10_000))).collect();
    let manifest = parse(&annotated(&large.join(","))).unwrap();
    assert_eq!(manifest.annotations.map(|text| text.len() > 3_900_000), Some(true));

    let many = |count: usize| (0..count).map(|i| format!(r#""{i}":"""#)).collect::<Vec<_>>().join(",");
    assert!(parse(&annotated(&many(4096))).is_ok());
    assert!(refused(&annotated(&many(4097))).contains("more than 4096"));
    assert!(parse(&annotated(&format!(r#""{}":"""#, "k".repeat(1024)))).is_ok());
    for bad in [
        &format!(r#""{}":"""#, "k".repeat(1025)),
        r#""a\u0000b":"""#,
        r#""a\nb":"""#,
        r#""a\u0085b":"""#,
        r#""a":1"#,
        r#""a":null"#,
        r#""a":["x"]"#,
        r#""a":{}"#,
    ] {
        refused(&annotated(bad));
    }
    refused(&image(r#","annotations":[]"#));
    assert!(parse(&annotated(r#""a":"line\nbreak\u0000""#)).is_ok());
}

#[test]
fn messages_stay_short() {
    for bad in [
        image(&format!(r#","{}\u0000":1"#, "k".repeat(100_000))),
        image(&format!(r#","artifactType":"{}""#, "k".repeat(100_000))),
        image(&format!(r#","x":{}e999"#, "1".repeat(100_000))),
        format!(r#"{{"mediaType":"{}"}}"#, "m".repeat(100_000)),
    ] {
        assert!(refused(&bad).len() < 400);
    }
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), header in "\\PC{0,40}") {
        let _ = Manifest::parse(&bytes, Some(&header));
    }

    /// One byte of a good manifest changed, removed or doubled.
    #[test]
    fn never_panics_near_a_good_one(at: prop::sample::Index, byte: u8, how in 0..3_u8) {
        let mut bytes = image(r#","annotations":{"k":"\u00e4"},"artifactType":"a/b""#).into_bytes();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, byte),
        }
        let _ = Manifest::parse(&bytes, None);
    }

    /// What is accepted is read as serde_json reads it.
    #[test]
    fn agrees_with_serde(layers in 0..5_usize, key in "[a-z]{1,5}", value in ".{0,20}", unknown in ".{0,10}") {
        let layer = desc(LAYER, "layer", "");
        let annotations = serde_json::json!({ &key: value }).to_string();
        let unknown = serde_json::json!(unknown);
        let body = format!(
            r#"{{"unknown":{unknown},"schemaVersion":2,"annotations":{annotations},"layers":[{}],"config":{}}}"#,
            vec![layer.as_str(); layers].join(","),
            config()
        );
        let manifest = parse(&body).unwrap();
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(manifest.layers.len(), json["layers"].as_array().unwrap().len());
        let read: serde_json::Value = serde_json::from_str(&manifest.annotations.unwrap()).unwrap();
        prop_assert_eq!(&read, &json["annotations"]);
        let config = manifest.config.unwrap();
        prop_assert_eq!(config.digest.as_str(), json["config"]["digest"].as_str().unwrap());
    }
}
