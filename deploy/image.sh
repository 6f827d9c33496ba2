#!/bin/sh
# Makes a container image of an observer binary, without a registry and without any tool for containers: an archive
# that `ctr images import`, `docker load`, `podman load` and `skopeo` read (the OCI layout, with Docker's manifest
# beside it). The same binary makes the same archive, byte for byte.
#
#     deploy/image.sh BINARY ARCHIVE [NAME:TAG]
#
# LEVEL is that of the compression, 1 to 9.
#
# A static binary is alone in the image. Of any other one, the libraries that it needs are put beside it.
set -eu

binary=$1
archive=$2
name=${3:-observer:0.1.0}
case $(uname -m) in
x86_64) arch=amd64 ;;
aarch64) arch=arm64 ;;
*) arch=$(uname -m) ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
out=$work/out
blobs=$out/blobs/sha256
mkdir -p "$root/usr/bin" "$root/etc/observer" "$root/var/lib/observer/incidents" "$root/proc" "$root/sys" "$root/tmp" "$blobs"
chmod 1777 "$root/tmp"
chmod 0700 "$root/var/lib/observer/incidents"
install -m 0755 "$binary" "$root/usr/bin/observer"

# Lines of ldd: `name => path (address)` and `path (address)`.
if libraries=$(ldd "$binary" 2>/dev/null); then
    for library in $(printf '%s\n' "$libraries" | sed -n 's|^[^/]*\(/[^ ]*\) (.*|\1|p'); do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
fi

pack() { # folder, archive: always in the same order, by nobody, at no time
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar -C "$1" -cf "$2" .
}
digest() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }
store() { # file: becomes a blob; prints its digest
    sum=$(digest "$1")
    mv "$1" "$blobs/$sum"
    printf '%s' "$sum"
}

pack "$root" "$work/layer.tar"
diff_id=$(digest "$work/layer.tar")
gzip "-${LEVEL:-9}" -n "$work/layer.tar"
layer=$(store "$work/layer.tar.gz")
layer_size=$(size "$blobs/$layer")

cat >"$work/config.json" <<END
{"architecture":"$arch","os":"linux","created":"1970-01-01T00:00:00Z","config":{"Entrypoint":["/usr/bin/observer"],"Cmd":["agent"],"User":"0:0","WorkingDir":"/","Env":["PATH=/usr/bin"],"Labels":{"org.opencontainers.image.title":"observer","org.opencontainers.image.licenses":"Apache-2.0 OR MIT"}},"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"deploy/image.sh"}]}
END
config=$(store "$work/config.json")

cat >"$work/manifest.json" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$(size "$blobs/$config")},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$layer_size}]}
END
manifest=$(store "$work/manifest.json")

printf '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
cat >"$out/index.json" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$(size "$blobs/$manifest"),"annotations":{"io.containerd.image.name":"docker.io/library/$name","org.opencontainers.image.ref.name":"${name##*:}"},"platform":{"architecture":"$arch","os":"linux"}}]}
END
cat >"$out/manifest.json" <<END
[{"Config":"blobs/sha256/$config","RepoTags":["$name"],"Layers":["blobs/sha256/$layer"]}]
END

mkdir -p "$(dirname "$archive")"
pack "$out" "$archive"
printf '%s: %s, layer of %s bytes, manifest sha256:%s\n' "$archive" "$name" "$layer_size" "$manifest"
