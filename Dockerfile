# Portcullis in a container: one static binary and nothing else. docs/guide/docker.md has the commands.
#
#   docker build -t portcullis .

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# crt-static: the C library goes into the binary. With --target the flag is not for build scripts.
RUN set -eu; \
    target="$(rustc -vV | sed -n 's/^host: //p')"; \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p portcullis --target "$target"; \
    install -D -m 0755 "target/$target/release/portcullis" /image/portcullis; \
    mkdir /image/volume

FROM scratch
COPY --from=build /image/portcullis /usr/local/bin/portcullis
# Empty: a new named volume gets the owner of what is below it.
COPY --from=build --chown=65532:65532 /image/volume /var/lib/portcullis
VOLUME /var/lib/portcullis
USER 65532:65532
# The data directory is below the volume, so that init finds room for its files beside it.
ENV PORTCULLIS_DATA_DIR=/var/lib/portcullis/data \
    PORTCULLIS_SERVER__LISTEN=0.0.0.0:5000
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["portcullis", "health"]
LABEL org.opencontainers.image.title="Portcullis" \
      org.opencontainers.image.description="A self-hosted registry for container images, for teams that have to know who can pull what" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/guide/docker.md"
ENTRYPOINT ["portcullis"]
CMD ["serve"]
