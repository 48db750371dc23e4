//! Requests of the admin API: a byte for the route, a line for its parameters (separated by blanks), a line for the query,
//! then the body. Jobs are not started: they read and write files that the request names.

use api::Route;
use axum::body::Body;
use http::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Input;
use crate::world::{Answer, World};

const JOBS: [Route; 4] = [Route::GcRun, Route::BackupCreate, Route::BackupVerify, Route::FsckRun];

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let route = Route::ALL[input.below(Route::ALL.len())];
    let (parameters, query) = (input.text_line(), input.text_line());
    let body = input.rest();
    types(body);
    if JOBS.contains(&route) {
        return;
    }
    let parameters: Vec<&str> = parameters.split(' ').chain(["", ""]).collect();
    let count = route.path().matches('{').count();
    let path = api::path::of(route, &parameters[..count]);
    let target = if query.is_empty() { path } else { format!("{path}?{query}") };
    let request = Request::builder().method(route.method().as_str()).uri(target).header("host", "localhost:5001");
    let Ok(request) = request.header("content-type", "application/json").body(Body::from(body.to_vec())) else {
        return;
    };
    World::with(|world, _| judge(&world.ask_admin(request)));
}

fn judge(answer: &Answer) {
    assert!(answer.status < 500, "{answer:?}");
    if answer.status >= 400 {
        let error = &answer.json()["error"];
        let code = error["code"].as_str().unwrap_or_default();
        assert!(api::ErrorCode::ALL.iter().any(|known| known.as_str() == code), "{answer:?}");
        assert!(!error["message"].as_str().unwrap_or_default().is_empty(), "{answer:?}");
    } else if answer.status != 204 {
        assert!(answer.json().is_object(), "{answer:?}");
    }
}

/// What is read as a request is written as one that is the same.
fn types(body: &[u8]) {
    again::<api::CreateUser>(body);
    again::<api::UpdateUser>(body);
    again::<api::ChangePassword>(body);
    again::<api::CreateRobot>(body);
    again::<api::UpdateRobot>(body);
    again::<api::RotateRobot>(body);
    again::<api::CreateGrant>(body);
    again::<api::RefreshSession>(body);
    again::<api::StartGc>(body);
    again::<api::StartBackup>(body);
    again::<api::VerifyBackup>(body);
    again::<api::StartFsck>(body);
}

fn again<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(body: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(body) else { return };
    let written = serde_json::to_vec(&read).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), read);
}
