//! `kedge clone` and the plan of a snapshot, as far as any host goes with them.
#![forbid(unsafe_code)]

mod program;

use expect_test::{Expect, expect};
use program::kedge;

fn outcome(words: &str, expected: &Expect) {
    let words: Vec<_> = words.split(' ').collect();
    expected.assert_eq(&kedge(&words));
}

#[test]
fn clones_have_names_of_their_own() {
    outcome(
        "clone web --count 2 --name web",
        &expect![[r#"
        2
        error: 2 clones cannot all have the name `web`
          fix: write --name 'web-{n}'
    "#]],
    );
    outcome(
        "clone web --count 2 --name web_{n}",
        &expect![[r#"
        2
        error: `--name` leads to a name that no machine can have
          because: `--id` cannot be `web_2`
          fix: write 1 to 64 letters, digits and hyphens
    "#]],
    );
    outcome(
        "clone web --count 0 --name web-{n}",
        &expect![[r#"
            2
            error: `--count` cannot be `0`
              fix: see `kedge clone --help`
        "#]],
    );
    outcome(
        "clone --count 2 --name web-{n}",
        &expect![[r#"
        2
        error: `<STATE|ID>` is missing
          fix: add `<STATE|ID>`; see `kedge clone --help`
    "#]],
    );
}

#[test]
fn what_there_is_not_cannot_be_cloned() {
    let files = "clone /nowhere/state --memory /nowhere/memory";
    outcome(
        &format!("{files} --count 2 --name web-{{n}}"),
        &expect![[r#"
        1
        error: /nowhere/state cannot be opened
          because: No such file or directory (os error 2)
          fix: name the two files of a snapshot
    "#]],
    );
    outcome(
        "clone --api-sock /nowhere/api --count 2 --name web-{n}",
        &expect![[r#"
        1
        error: the machine cannot be asked how it is
          because: no machine answers at `/nowhere/api`
          because: No such file or directory (os error 2)
          fix: name the socket of a machine that runs (--api-sock)
    "#]],
    );
}

#[test]
fn the_help_says_what_the_number_is() {
    outcome(
        "clone --help",
        &expect![[r#"
            0
            Start many machines from one snapshot, or from one machine

            Usage: kedge clone (STATE --memory FILE | ID) --count N --name 'NAME-{n}' [OPTIONS]

            Arguments:
              [STATE|ID]  A snapshot's state file, or a machine's name

            Options:
                  --memory <FILE>         The snapshot's memory file
                  --api-sock <FILE>       The machine's API socket, instead of its name
                  --count <N>             How many clones
                  --name <NAME-{n}>       Their names
                  --first <N>             The number of the first [default: 1]
                  --log <FILE>            Where each writes its log, and what its guest writes to a serial
                                          port on standard output [default: nowhere]
                  --paused                Do not let it go on yet: `kedge resume` does
                  --clock <POLICY>        What the time since is to the guest's clock: stop, advance,
                                          or what its profile says [default: profile]
                  --allow <REGISTER,...>  Accept that these registers are not what the guest was saved with
                  --track-changes         Note what the guest changes, for `kedge snapshot create --diff`
                  --log-level <LEVEL>     Log on stderr: off, error, warn, info, debug or trace [default: warn]
              -h, --help                  Print this help

            How its memory comes back:
                  --working-set <FILE>  Have the pages of this file in place at once. If there is none,
                                        write it at the first pause: the pages needed until then
                  --huge-pages <SIZE>   The host's pages behind it: none, transparent, 2M,
                                        or as they were in the snapshot [default: snapshot]

            What it uses here, where that is something else:
                  --serial <PORT>
                      Serial port: stdio, socket, file=PATH or none
                  --disk <[id=NAME,]path=FILE|socket=PATH>
                      What a disk uses
                  --net <[id=NAME,]tap=NAME|socket=PATH[,mac=ADDRESS][,vhost=on|off]>
                      What a network interface uses
                  --vsock <path=SOCKET>
                      What a vsock device uses

            In every value, {n} stands for the clone's number, from --first on. Each clone is a process
            of its own, which kedge's other commands find by its name, with random numbers and a
            generation of its own; the memory that none of them has changed, they share. For each, a
            line of JSON says its id, pid and api_socket, or its error. A clone that cannot be started
            leaves nothing behind and does not keep the others from starting.

            A machine is saved by its own process for it, into files in $TMPDIR that nobody else sees;
            one that runs goes on once it is saved.

            Examples:
              kedge clone web.state --memory web.mem --count 3 --name 'web-{n}' \
                  --disk 'id=root,path=root-{n}.ext4' --net 'tap=tap{n}'
              kedge clone web --count 2 --name 'copy-{n}' --log 'copy-{n}.log'

            Exit status: 0 when all clones were started, 1 when one was not or after an error, 2 when
            the command line makes no sense.
        "#]],
    );
}

#[test]
fn a_plan_is_of_a_snapshot_or_of_a_profile() {
    outcome(
        "abi check --snapshot /nowhere/state",
        &expect![[r#"
            1
            error: the state file /nowhere/state cannot be loaded
              because: it cannot be read
              because: No such file or directory (os error 2)
              fix: name the state file of a snapshot
        "#]],
    );
    outcome(
        "abi check --snapshot /nowhere/state --profile arm64-v1",
        &expect![[r#"
        2
        error: `--snapshot` and `--profile` exclude each other
          fix: leave one of them out
    "#]],
    );
    outcome(
        "abi check --profile arm64-v1 --allow psci_version",
        &expect![[r#"
            2
            error: `--profile` and `--allow` exclude each other
              fix: leave one of them out
        "#]],
    );
    outcome(
        "abi check",
        &expect![[r#"
        2
        error: `--profile` is missing
          fix: add `--profile <NAME|FILE>`; see `kedge abi --help`
    "#]],
    );
}
