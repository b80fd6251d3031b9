#!/bin/sh
# Runs the phases of a build. What is beneath /codebuild/agent was written by CodeBuild when the build began; `progress`
# is what it follows. Each command is a process of the build's shell, with the variables and the directory that the one
# before it left.

# The build's variables, before any of this program's can have the name of one.
mkdir -p /codebuild/output/tmp
export -p >/codebuild/output/tmp/env.sh

A=/codebuild/agent
T=/codebuild/output/tmp
succeeding=1

now() { date -u '+%Y/%m/%d %H:%M:%S'; }
say() { printf '[Container] %s %s\n' "$(now)" "$1"; }
tell() { printf '%s %s\n' "$(date +%s%N)" "$1" >>"$A/progress"; }

# run NUMBER USER: one command.
run() {
    printf '[Container] %s Running command %s\n' "$(now)" "$(cat "$A/commands/$1")"
    {
        printf '. %s/env.sh\ncd "$(cat %s/dir.txt)"\nset -a\nCODEBUILD_BUILD_SUCCEEDING=%s\n' "$T" "$T" "$succeeding"
        cat "$A/commands/$1"
        printf '\nCODEBUILD_LAST_EXIT=$?\n'
        [ -n "$separate" ] || printf 'export -p >%s/env.sh\npwd >%s/dir.txt\n' "$T" "$T"
        printf 'exit $CODEBUILD_LAST_EXIT\n'
    } >"$T/script.sh"
    if [ -z "$2" ] || [ "$2" = root ]; then
        env -i "PATH=$PATH" "HOME=$HOME" "$shell" "$T/script.sh" </dev/null
    else
        chmod -R a+rwX "$T"
        su -p -s "$shell" "$2" -c "env -i 'PATH=$PATH' 'HOME=$HOME' '$shell' $T/script.sh" </dev/null
    fi
    status=$?
    [ "$status" = 0 ] || say "Command did not exit successfully $(cat "$A/commands/$1") exit status $status"
    return "$status"
}

# commands USER NUMBERS -- NUMBERS: those of a phase, and those that are run whatever becomes of them. The first that
# fails is left in `bad`, with its status.
commands() {
    user=$1 bad= finally=
    shift
    for number in "$@"; do
        if [ "$number" = -- ]; then
            finally=1 skip=
        elif [ -z "$skip" ] && ! run "$number" "$user"; then
            [ -n "$bad" ] || bad="$number $status"
            skip=1
        fi
    done
    skip=
    [ -z "$bad" ]
}

# phase NAME RETRIES PATTERN USER NUMBERS -- NUMBERS
phase() {
    name=$1 left=$2 pattern=$3
    shift 3
    say "Entering phase $name"
    tell "enter $name"
    while ! commands "$@"; do
        why="Error while executing command: $(cat "$A/commands/${bad% *}"). Reason: exit status ${bad#* }"
        if [ "$left" -gt 0 ] && { [ -z "$pattern" ] || printf '%s\n' "$why" | grep -Eq -e "$pattern"; }; then
            left=$((left - 1))
            say "Retrying phase $name"
            continue
        fi
        succeeding=0
        tell "leave $name $bad"
        say "Phase complete: $name State: FAILED"
        say "Phase context status code: COMMAND_EXECUTION_ERROR Message: $why"
        return 1
    done
    tell "leave $name"
    say "Phase complete: $name State: SUCCEEDED"
    say "Phase context status code:  Message: "
}

# value NAME: what a variable is in the end.
value() { env -i "PATH=$PATH" "$shell" -c ". $T/env.sh; printf '%s' \"\${$1-}\""; }

# hold: until what is kept of the build was read from outside.
hold() { while :; do sleep 3600; done; }

. "$A/settings.sh"
shell=$(command -v "$shell") || {
    say "The image has no shell $(cat "$A/shell")"
    tell "lost $(cat "$A/shell")"
    hold
}
printf '%s\n' "$CODEBUILD_SRC_DIR" >"$T/dir.txt"
while IFS= read -r line; do say "$line"; done <"$A/greeting"
tell begin
. "$A/phases.sh"
for variable in $exported; do value "$variable" >"$A/exported/$variable"; done
for number in $names; do
    env -i "PATH=$PATH" "$shell" -c ". $T/env.sh; cd \"\$(cat $T/dir.txt)\"; . $A/names/$number" >"$A/names/$number.out"
done
tell "done $succeeding"
hold
