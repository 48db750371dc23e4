//! The admin API: a client of its router in this process, and what holds for every route.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use server::state::{AppState, Listener, Peer, RequestId};
use std::sync::Arc;
use tower::ServiceExt;

use crate::world::{World, basic, password};

/// The admin API of a world, asked through the socket unless said otherwise.
pub struct Admin {
    router: axum::Router,
}

/// A request to be made.
pub struct Ask {
    router: axum::Router,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Option<Value>,
    listener: Listener,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Told {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Admin {
    pub fn of(world: &World) -> Self {
        Self::of_state(&world.state)
    }

    /// The admin API of a server.
    pub fn of_state(state: &AppState) -> Self {
        let seed = std::sync::atomic::AtomicU64::new(1);
        let random: oci::Random = Arc::new(move |bytes: &mut [u8]| {
            for byte in bytes {
                let next = seed.load(std::sync::atomic::Ordering::Relaxed).wrapping_mul(6_364_136_223_846_793_005) + 1;
                seed.store(next, std::sync::atomic::Ordering::Relaxed);
                *byte = (next >> 33) as u8;
            }
        });
        Self { router: server::admin::router(state.clone(), random, Arc::new(Vec::new)) }
    }

    /// A request of an API route.
    pub fn ask(&self, route: api::Route, parameters: &[&str]) -> Ask {
        self.raw(route.method().as_str(), &api::path::of(route, parameters))
    }

    /// Any request.
    pub fn raw(&self, method: &str, target: &str) -> Ask {
        Ask {
            router: self.router.clone(),
            method: method.parse().unwrap(),
            target: target.to_owned(),
            headers: HeaderMap::from_iter([(axum::http::header::HOST, "localhost:5001".parse().unwrap())]),
            body: None,
            listener: Listener::Socket,
        }
    }

    /// A user with the tests' password.
    pub async fn user(&self, name: &str) {
        let body = json!({ "name": name, "password": password(name) });
        self.ask(api::Route::UserCreate, &[]).body(body).send().await.expect(201);
    }

    /// An administrator with the tests' password.
    pub async fn administrator(&self, name: &str) {
        let body = json!({ "name": name, "password": password(name), "administrator": true });
        self.ask(api::Route::UserCreate, &[]).body(body).send().await.expect(201);
    }

    /// A grant of a role or of verbs.
    pub async fn grant(&self, subject: &str, what: &str, repository: &str) -> i64 {
        let mut body = json!({ "subject": subject, "repository": repository });
        match what {
            "reader" | "writer" | "maintainer" => body["role"] = what.into(),
            verbs => body["verbs"] = verbs.split(',').collect(),
        }
        let told = self.ask(api::Route::GrantCreate, &[]).body(body).send().await.expect(201);
        told.json()["id"].as_i64().unwrap()
    }

    /// A robot; its login name and its secret.
    pub async fn robot(&self, namespace: &str, name: &str, expires_in: &str) -> (String, String) {
        let body = json!({ "namespace": namespace, "name": name, "expires_in": expires_in });
        let told = self.ask(api::Route::RobotCreate, &[]).body(body).send().await.expect(201).json();
        (told["name"].as_str().unwrap().to_owned(), told["secret"].as_str().unwrap().to_owned())
    }

    /// Waits until no job is running.
    pub async fn rest(&self) {
        loop {
            let jobs = self.ask(api::Route::JobList, &[]).send().await.expect(200).json();
            let running = jobs["items"].as_array().unwrap().iter().any(|job| job["state"] == "running");
            if !running {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Starts a job and waits for its end.
    pub async fn job(&self, route: api::Route, body: Value) -> Value {
        let id = self.ask(route, &[]).body(body).send().await.expect(202).json()["id"].as_str().unwrap().to_owned();
        self.rest().await;
        self.ask(api::Route::JobShow, &[&id]).send().await.expect(200).json()
    }
}

impl Ask {
    /// Through the admin listener, without a login.
    pub fn tcp(mut self) -> Self {
        self.listener = Listener::Admin;
        self
    }

    /// Through the admin listener, by this user of the tests.
    pub fn user(self, name: &str) -> Self {
        let value = basic(name, &password(name));
        self.authorization(&value)
    }

    /// Through the admin listener, with this header.
    pub fn authorization(self, value: &str) -> Self {
        self.tcp().header("authorization", value)
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    pub fn query(mut self, query: &str) -> Self {
        self.target = format!("{}?{query}", self.target);
        self
    }

    pub async fn send(self) -> Told {
        let body = self.body.as_ref().map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let json = self.body.is_some();
        self.send_raw(body, json.then_some("application/json")).await
    }

    pub async fn send_raw(self, body: Body, content_type: Option<&str>) -> Told {
        let mut request = Request::builder().method(self.method).uri(self.target).body(body).unwrap();
        *request.headers_mut() = self.headers;
        if let Some(content_type) = content_type {
            request.headers_mut().insert("content-type", content_type.parse().unwrap());
        }
        let address = (self.listener == Listener::Admin).then(|| "127.0.0.1:40001".parse().unwrap());
        request.extensions_mut().insert(Peer { addr: address, tls: false, listener: self.listener });
        request.extensions_mut().insert(RequestId("request-2".to_owned()));
        let (parts, body) = self.router.oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Told { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

impl Told {
    /// Fails the test unless the status is this.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The error's code; empty when there is none.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Status and code.
    pub fn told(&self) -> (u16, String) {
        (self.status, self.code())
    }
}
