//! The OpenAPI document, written from the types of `api`. A route without a description does not compile.

use std::collections::BTreeSet;

use api::{Method, Route};
use axum::response::Response;
use http::StatusCode;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, Info, ObjectBuilder, OpenApi, OpenApiBuilder, PathsBuilder, Ref, RefOr, Required,
    ResponseBuilder, ResponsesBuilder, Schema, Type,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::extract::Admin;
use super::failure::raw_answer;

/// Serves the document.
pub async fn serve(Admin(_): Admin) -> Response {
    raw_answer(StatusCode::OK, document().into_bytes())
}

/// The document as text: JSON, indented, ending with a line break.
pub fn document() -> String {
    let mut text = build().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// What one route takes and gives.
struct Description {
    summary: &'static str,
    query: Vec<Parameter>,
    body: Option<Named>,
    status: &'static str,
    answer: Option<Named>,
}

/// A schema that goes to the components.
struct Named {
    name: String,
    schemas: Vec<(String, RefOr<Schema>)>,
}

fn named<T: ToSchema>() -> Option<Named> {
    let name = T::name().into_owned();
    let mut schemas = vec![(name.clone(), T::schema())];
    T::schemas(&mut schemas);
    Some(Named { name, schemas })
}

/// A page of these. Each has a name of its own, since the document knows no generics.
fn pages<T: ToSchema>() -> Option<Named> {
    let name = format!("{}Page", T::name());
    let mut schemas = vec![(name.clone(), api::Page::<T>::schema()), (T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    Some(Named { name, schemas })
}

fn query<T: IntoParams>() -> Vec<Parameter> {
    T::into_params(|| Some(ParameterIn::Query))
}

fn reads(summary: &'static str, query: Vec<Parameter>, answer: Option<Named>) -> Description {
    Description { summary, query, body: None, status: "200", answer }
}

fn takes(summary: &'static str, body: Option<Named>, status: &'static str, answer: Option<Named>) -> Description {
    Description { summary, query: Vec::new(), body, status, answer }
}

fn removes(summary: &'static str) -> Description {
    Description { summary, query: Vec::new(), body: None, status: "204", answer: None }
}

fn describe(route: Route) -> Description {
    use api::*;
    match route {
        Route::OpenApi => reads("This document", Vec::new(), None),
        Route::Whoami => reads("Who the server takes the caller for", Vec::new(), named::<Whoami>()),
        Route::SessionCreate => takes("Log in: name and password as Basic", None, "200", named::<Session>()),
        Route::SessionRefresh => {
            takes("Get a new token with a refresh token", named::<RefreshSession>(), "200", named::<Session>())
        }
        Route::UserList => reads("List users by name", query::<ListQuery>(), pages::<User>()),
        Route::UserCreate => takes("Make a user", named::<CreateUser>(), "201", named::<CreatedUser>()),
        Route::UserShow => reads("Show a user", Vec::new(), named::<User>()),
        Route::UserUpdate => takes("Change a user", named::<UpdateUser>(), "200", named::<User>()),
        Route::UserRemove => removes("Remove a user and the user's grants"),
        Route::UserPassword => {
            takes("Set a user's password", named::<ChangePassword>(), "200", named::<ChangedPassword>())
        }
        Route::RobotList => reads("List robots by name", query::<ListQuery>(), pages::<Robot>()),
        Route::RobotCreate => takes("Make a robot", named::<CreateRobot>(), "201", named::<CreatedRobot>()),
        Route::RobotShow => reads("Show a robot", Vec::new(), named::<Robot>()),
        Route::RobotUpdate => takes("Disable or enable a robot", named::<UpdateRobot>(), "200", named::<Robot>()),
        Route::RobotRemove => removes("Remove a robot and its grants"),
        Route::RobotRotate => {
            takes("Give a robot a new secret", named::<RotateRobot>(), "200", named::<CreatedRobot>())
        }
        Route::GrantList => reads("List grants by id", query::<GrantQuery>(), pages::<Grant>()),
        Route::GrantCreate => takes("Give a grant", named::<CreateGrant>(), "201", named::<Grant>()),
        Route::GrantRemoveBySubject => {
            reads("Take all grants of a subject away", query::<RemoveGrantsQuery>(), named::<Removed>())
        }
        Route::GrantShow => reads("Show a grant", Vec::new(), named::<Grant>()),
        Route::GrantRemove => removes("Take a grant away"),
        Route::RepositoryList => reads("List repositories by name", query::<ListQuery>(), pages::<Repository>()),
        Route::RepositoryShow => reads("Show a repository", Vec::new(), named::<RepositoryDetail>()),
        Route::RepositoryRemove => removes("Delete a repository with all that is in it"),
        Route::TagList => reads("List the tags of a repository by name", query::<ListQuery>(), pages::<Tag>()),
        Route::TagRemove => removes("Remove a tag; its manifest stays"),
        Route::EventList => reads("List events", query::<EventQuery>(), pages::<Event>()),
        Route::GcPlan => reads("What a collection would remove now", query::<PlanQuery>(), named::<CollectionCounts>()),
        Route::GcRun => takes("Start a collection", named::<StartGc>(), "202", named::<Job>()),
        Route::BackupCreate => takes("Start a backup", named::<StartBackup>(), "202", named::<Job>()),
        Route::BackupVerify => takes("Start verifying a backup", named::<VerifyBackup>(), "202", named::<Job>()),
        Route::FsckRun => takes("Start a check", named::<StartFsck>(), "202", named::<Job>()),
        Route::JobList => reads("List jobs, newest first", query::<ListQuery>(), pages::<Job>()),
        Route::JobShow => reads("Show a job", Vec::new(), named::<Job>()),
        Route::TaskList => reads("List the background tasks", Vec::new(), pages::<Task>()),
        Route::ServerShow => reads("About the server", Vec::new(), named::<ServerInfo>()),
    }
}

fn build() -> OpenApi {
    let mut components = ComponentsBuilder::new()
        .security_scheme("basic", SecurityScheme::Http(Http::new(HttpAuthScheme::Basic)))
        .security_scheme("session", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let mut seen = BTreeSet::new();
    let mut add = |named: &Named| {
        for (name, schema) in &named.schemas {
            if seen.insert(name.clone()) {
                components = std::mem::take(&mut components).schema(name.clone(), schema.clone());
            }
        }
        Ref::from_schema_name(named.name.clone())
    };
    let mut paths = PathsBuilder::new();
    let errors = named::<api::ErrorBody>();
    for route in Route::ALL.iter().copied() {
        let description = describe(route);
        let mut operation = OperationBuilder::new()
            .operation_id(Some(route.name()))
            .summary(Some(description.summary))
            .tag(tag(route))
            .security(SecurityRequirement::new("basic", [] as [&str; 0]))
            .security(SecurityRequirement::new("session", [] as [&str; 0]));
        for parameter in path_parameters(route).into_iter().chain(description.query) {
            operation = operation.parameter(parameter);
        }
        if route.method() == Method::Post && !matches!(route, Route::SessionCreate | Route::SessionRefresh) {
            operation = operation.parameter(idempotency_key());
        }
        if let Some(body) = &description.body {
            let body = RequestBodyBuilder::new().content("application/json", Content::new(Some(add(body))));
            operation = operation.request_body(Some(body.build()));
        }
        let mut success = ResponseBuilder::new().description("Done");
        if let Some(answer) = &description.answer {
            success = success.content("application/json", Content::new(Some(add(answer))));
        }
        let mut responses = ResponsesBuilder::new().response(description.status, success);
        if let Some(errors) = &errors {
            let failure = ResponseBuilder::new()
                .description("Not done; the codes are listed at ErrorCode")
                .content("application/json", Content::new(Some(add(errors))));
            responses = responses.response("default", failure);
        }
        operation = operation.responses(responses.build());
        let method = match route.method() {
            Method::Get => HttpMethod::Get,
            Method::Post => HttpMethod::Post,
            Method::Patch => HttpMethod::Patch,
            Method::Delete => HttpMethod::Delete,
        };
        paths = paths.path(route.path(), PathItem::new(method, operation));
    }
    let mut info = Info::new("Portcullis admin API", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "On the admin listener (an administrator's name and password, or a session token) and on the socket in the data \
         directory (no login). Unknown fields of requests are refused; answers may gain fields. A name in a path is one \
         segment: the `/` in a repository's name is written `%2F`."
            .to_owned(),
    );
    OpenApiBuilder::new().info(info).paths(paths.build()).components(Some(components.build())).build()
}

/// The part of the path after the version.
fn tag(route: Route) -> String {
    let part = route.path().split('/').nth(3).unwrap_or_default();
    part.trim_end_matches(".json").to_owned()
}

fn path_parameters(route: Route) -> Vec<Parameter> {
    let names = route.path().split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build()
    };
    names.map(parameter).collect()
}

fn idempotency_key() -> Parameter {
    ParameterBuilder::new()
        .name(api::IDEMPOTENCY_KEY)
        .parameter_in(ParameterIn::Header)
        .description(Some("Makes it safe to send the request again; kept for 24 hours. Secrets are not repeated."))
        .required(Required::False)
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).max_length(Some(128))))
        .build()
}
