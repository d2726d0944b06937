# For the other scripts to source: the repository's root as working directory, its tools first on the path.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

once() {  # once FILE COMMAND...: run it unless FILE is there
    local file=$1
    shift
    [ -e "$file" ] || { echo "\$ $*"; "$@"; }
}

resume() {  # resume FILE: --resume where an earlier call left FILE
    if [ -e "$1" ]; then echo --resume; fi
}
