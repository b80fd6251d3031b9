#!/bin/sh
# The docker command of Neargate's build image: podman, whose builds are buildah's, without a daemon. What buildx has
# besides is put in podman's words.
[ -e /codebuild/agent/privileged ] || {
    echo "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?" >&2
    echo "(Images are built in builds whose project has privileged mode.)" >&2
    exit 1
}

# build ARGUMENTS: podman's build, and a push of every tag where that is asked for.
build() {
    push= tags= count=$#
    while [ "$count" -gt 0 ]; do
        argument=$1
        shift
        count=$((count - 1))
        case $argument in
        --push | --output=type=registry | --output=type=image,push=true) push=1 ;;
        --load | --output=type=docker | --progress=* | --provenance* | --sbom* | --builder=*) ;;
        --progress | --builder)
            shift
            count=$((count - 1))
            ;;
        # Caches elsewhere: layers are kept where the project says.
        --cache-from=type=* | --cache-to=*) ;;
        --cache-to)
            shift
            count=$((count - 1))
            ;;
        --cache-from)
            case $1 in type=*) ;; *) set -- "$@" --cache-from "$1" ;; esac
            shift
            count=$((count - 1))
            ;;
        -t | --tag)
            tags="$tags $1"
            set -- "$@" -t "$1"
            shift
            count=$((count - 1))
            ;;
        --tag=* | -t?*)
            tag=${argument#--tag=}
            [ "$tag" != "$argument" ] || tag=${argument#-t}
            tags="$tags $tag"
            set -- "$@" -t "$tag"
            ;;
        *) set -- "$@" "$argument" ;;
        esac
    done
    podman build "$@" || exit
    [ -z "$push" ] || for tag in $tags; do podman push "$tag" || exit; done
}

case $1 in
build)
    shift
    build "$@"
    ;;
buildx)
    case $2 in
    build)
        shift 2
        build "$@"
        ;;
    version) echo "github.com/docker/buildx (podman $(podman version --format '{{.Client.Version}}'))" ;;
    create | use | inspect | ls | rm | stop) echo "default" ;;
    imagetools)
        shift 2
        exec podman manifest "$@"
        ;;
    *)
        echo "docker buildx $2 is not built" >&2
        exit 1
        ;;
    esac
    ;;
image)
    [ "$2" != build ] || {
        shift 2
        build "$@"
        exit
    }
    exec podman "$@"
    ;;
*) exec podman "$@" ;;
esac
