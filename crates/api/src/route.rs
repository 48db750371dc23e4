//! The addresses of the API. The server builds its router from [`Route::ALL`], the permission matrix and the OpenAPI
//! document are compared with it, and clients build paths with [`path`].

/// The methods that the API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Makes or starts something.
    Post,
    /// Changes some fields.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// In capital letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

macro_rules! routes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $method:ident $path:literal;)+) => {
        /// Every route of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Route { $($(#[doc = $doc])+ $variant,)+ }

        impl Route {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The method.
            pub fn method(self) -> Method {
                match self { $(Self::$variant => Method::$method,)+ }
            }

            /// The path, with names of parameters in braces.
            pub fn path(self) -> &'static str {
                match self { $(Self::$variant => $path,)+ }
            }

            /// Whether a server in read-only mode refuses it: all but reads, logins, and jobs that leave the registry as it is.
            pub fn is_change(self) -> bool {
                let leaves_it = matches!(
                    self,
                    Self::SessionCreate | Self::SessionRefresh | Self::BackupCreate | Self::BackupVerify | Self::FsckRun
                );
                self.method() != Method::Get && !leaves_it
            }

            /// The name of the variant.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)+ }
            }
        }
    };
}

routes! {
    /// The OpenAPI document; needs no login.
    OpenApi = Get "/api/v1/openapi.json";
    /// [`crate::Whoami`]
    Whoami = Get "/api/v1/whoami";
    /// Basic → [`crate::Session`]
    SessionCreate = Post "/api/v1/session";
    /// [`crate::RefreshSession`] → [`crate::Session`]; needs no login but the refresh token.
    SessionRefresh = Post "/api/v1/session/refresh";
    /// [`crate::ListQuery`] → page of [`crate::User`], by name
    UserList = Get "/api/v1/users";
    /// [`crate::CreateUser`] → 201 [`crate::CreatedUser`]
    UserCreate = Post "/api/v1/users";
    /// [`crate::User`]
    UserShow = Get "/api/v1/users/{name}";
    /// [`crate::UpdateUser`] → [`crate::User`]
    UserUpdate = Patch "/api/v1/users/{name}";
    /// 204
    UserRemove = Delete "/api/v1/users/{name}";
    /// [`crate::ChangePassword`] → [`crate::ChangedPassword`]
    UserPassword = Post "/api/v1/users/{name}/password";
    /// [`crate::ListQuery`] → page of [`crate::Robot`], by name
    RobotList = Get "/api/v1/robots";
    /// [`crate::CreateRobot`] → 201 [`crate::CreatedRobot`]
    RobotCreate = Post "/api/v1/robots";
    /// [`crate::Robot`]
    RobotShow = Get "/api/v1/robots/{name}";
    /// [`crate::UpdateRobot`] → [`crate::Robot`]
    RobotUpdate = Patch "/api/v1/robots/{name}";
    /// 204
    RobotRemove = Delete "/api/v1/robots/{name}";
    /// [`crate::RotateRobot`] → [`crate::CreatedRobot`]
    RobotRotate = Post "/api/v1/robots/{name}/rotate";
    /// [`crate::GrantQuery`] → page of [`crate::Grant`], by id
    GrantList = Get "/api/v1/grants";
    /// [`crate::CreateGrant`] → 201 [`crate::Grant`]
    GrantCreate = Post "/api/v1/grants";
    /// [`crate::RemoveGrantsQuery`] → [`crate::Removed`]
    GrantRemoveBySubject = Delete "/api/v1/grants";
    /// [`crate::Grant`]
    GrantShow = Get "/api/v1/grants/{id}";
    /// 204
    GrantRemove = Delete "/api/v1/grants/{id}";
    /// [`crate::ListQuery`] → page of [`crate::Repository`], by name
    RepositoryList = Get "/api/v1/repositories";
    /// [`crate::RepositoryDetail`]
    RepositoryShow = Get "/api/v1/repositories/{repository}";
    /// 204
    RepositoryRemove = Delete "/api/v1/repositories/{repository}";
    /// [`crate::ListQuery`] → page of [`crate::Tag`], by name
    TagList = Get "/api/v1/repositories/{repository}/tags";
    /// 204
    TagRemove = Delete "/api/v1/repositories/{repository}/tags/{tag}";
    /// [`crate::EventQuery`] → page of [`crate::Event`]
    EventList = Get "/api/v1/events";
    /// [`crate::PlanQuery`] → [`crate::CollectionCounts`]
    GcPlan = Get "/api/v1/gc/plan";
    /// [`crate::StartGc`] → 202 [`crate::Job`]
    GcRun = Post "/api/v1/gc";
    /// [`crate::StartBackup`] → 202 [`crate::Job`]
    BackupCreate = Post "/api/v1/backups";
    /// [`crate::VerifyBackup`] → 202 [`crate::Job`]
    BackupVerify = Post "/api/v1/backups/verify";
    /// [`crate::StartFsck`] → 202 [`crate::Job`]
    FsckRun = Post "/api/v1/fsck";
    /// Page of [`crate::Job`], newest first
    JobList = Get "/api/v1/jobs";
    /// [`crate::Job`]
    JobShow = Get "/api/v1/jobs/{id}";
    /// Page of [`crate::Task`]
    TaskList = Get "/api/v1/tasks";
    /// [`crate::ServerInfo`]
    ServerShow = Get "/api/v1/server";
}

/// Paths with their parameters filled in, and queries.
pub mod path {
    use super::Route;

    /// The route's path with its parameters, in order, each percent-encoded as one segment (so the `/` in a repository's
    /// name becomes `%2F`).
    pub fn of(route: Route, parameters: &[&str]) -> String {
        let mut parameters = parameters.iter();
        let mut path = String::new();
        for part in route.path().split('/').skip(1) {
            path.push('/');
            if part.starts_with('{') {
                encode_into(&mut path, parameters.next().copied().unwrap_or_default());
            } else {
                path.push_str(part);
            }
        }
        path
    }

    /// `path?key=value&…` with what is given; `path` alone when nothing is.
    pub fn with_query(path: String, pairs: &[(&str, Option<String>)]) -> String {
        let mut path = path;
        let mut separator = '?';
        for (key, value) in pairs {
            let Some(value) = value else { continue };
            path.push(separator);
            separator = '&';
            encode_into(&mut path, key);
            path.push('=');
            encode_into(&mut path, value);
        }
        path
    }

    /// Percent-encodes all but RFC 3986's unreserved characters.
    fn encode_into(text: &mut String, value: &str) {
        use std::fmt::Write;
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(path::of(Route::TagRemove, &["team/app", "v1"]), "/api/v1/repositories/team%2Fapp/tags/v1");
        assert_eq!(path::of(Route::UserShow, &["../x?y#z"]), "/api/v1/users/..%2Fx%3Fy%23z");
        let query = [("limit", Some("5".to_owned())), ("cursor", None), ("subject", Some("user:a b".to_owned()))];
        assert_eq!(
            path::with_query(path::of(Route::GrantList, &[]), &query),
            "/api/v1/grants?limit=5&subject=user%3Aa%20b"
        );
    }

    #[test]
    fn no_route_twice() {
        let mut seen = std::collections::HashSet::new();
        for route in Route::ALL {
            assert!(seen.insert((route.method(), route.path())), "{route:?}");
            assert!(route.path().starts_with("/api/v1/"));
        }
    }
}
