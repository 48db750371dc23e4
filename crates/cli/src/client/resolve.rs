//! Names of servers, looked up in Rust: the C library of a static binary would load plug-ins (NSS) that an image from scratch
//! does not have.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_resolver::TokioResolver;
use tokio::net::TcpStream;

/// Connects to the first address of the host that answers.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("the name {host} has no address"));
    for address in addresses(host).await? {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// An address as it stands, `localhost` as RFC 6761 says, else what `/etc/hosts` and the name servers of
/// `/etc/resolv.conf` answer.
async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let failed = |error| io::Error::other(format!("looking up {host}: {error}"));
    let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build()).map_err(failed)?;
    Ok(resolver.lookup_ip(host).await.map_err(failed)?.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_needs_no_name_server() {
        assert_eq!(addresses("10.1.2.3").await.unwrap(), ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses("::1").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses("LocalHost.").await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn each_address_is_tried() {
        // 127.0.0.1 only, while `localhost` is ::1 as well.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        connect("localhost", port).await.unwrap();
        drop(listener);
        assert!(connect("localhost", port).await.is_err());
    }
}
