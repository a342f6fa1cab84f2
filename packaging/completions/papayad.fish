# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_papayad_global_optspecs
    string join \n h/help V/version
end

function __fish_papayad_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_papayad_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_papayad_using_subcommand
    set -l cmd (__fish_papayad_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c papayad -n "__fish_papayad_needs_command" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_needs_command" -s V -l version -d 'Print version'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "run" -d 'Serve in the foreground, until SIGTERM'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "check" -d 'Find every mistake in the configuration and around it; touches nothing'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "log" -d 'Look into the room\'s log'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "token" -d 'Give out and take back the tokens that people join with'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "status" -d 'Who is here'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "kick" -d 'End the sessions of a name, or of one RECV by its process id'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "pause" -d 'Close the door; whoever is connected stays'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "resume" -d 'Open the door again'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "doctor" -d 'Compare the running service with what it must be; exits 77 on any difference'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "sandbox" -d 'What each process of the service may do'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "demo" -d 'A room of your own on this machine, a token, and you in it; nothing stays behind'
complete -c papayad -n "__fish_papayad_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papayad -n "__fish_papayad_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand run" -l while-stdin-is-open -d 'End when standard input does, so that whoever started the service cannot leave it behind'
complete -c papayad -n "__fish_papayad_using_subcommand run" -l session-is-stdout -d 'Standard output is papayad-session, open, whose directory may be closed to this user (Linux)'
complete -c papayad -n "__fish_papayad_using_subcommand run" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand check" -l print -d 'Show the configuration that counts, where each value stands, and what a change takes'
complete -c papayad -n "__fish_papayad_using_subcommand check" -l json -d 'One JSON object a line'
complete -c papayad -n "__fish_papayad_using_subcommand check" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand log; and not __fish_seen_subcommand_from verify export prune seal unseal help" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand log; and not __fish_seen_subcommand_from verify export prune seal unseal help" -f -a "verify" -d 'Walk over the whole log; print what is in it, and every line that is no record'
complete -c papayad -n "__fish_papayad_using_subcommand log; and not __fish_seen_subcommand_from verify export prune seal unseal help" -f -a "export" -d 'Print the records'
complete -c papayad -n "__fish_papayad_using_subcommand log; and not __fish_seen_subcommand_from verify export prune seal unseal help" -f -a "prune" -d 'Remove the oldest records for good; the service may run, and offsets stay what they are'
complete -c papayad -n "__fish_papayad_using_subcommand log; and not __fish_seen_subcommand_from verify export prune seal unseal help" -f -a "seal" -d 'Make the log append-only in the file system, as the service does when it starts as root'
complete -c papayad -n "__fish_papayad_using_subcommand log; and not __fish_seen_subcommand_from verify export prune seal unseal help" -f -a "unseal" -d 'Let root cut or remove the log again; the next start of the service seals it'
complete -c papayad -n "__fish_papayad_using_subcommand log; and not __fish_seen_subcommand_from verify export prune seal unseal help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from verify" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from verify" -l json -d 'One JSON object a line'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from export" -l from -d 'Begin at this offset, which must be the beginning of a line' -r
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from export" -l since -d 'Begin at this time: 2026-11-22T22:00:00Z, 2026-11-22 (local time), or an age such as 2h' -r
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from export" -l format -d 'How they look' -r -f -a "text\t'Lines for a person'
json\t'The records as they stand in the log, with their offsets, one JSON object a line'
html\t'One page for a browser, which loads nothing and runs nothing'"
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from export" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from export" -l json -d 'The same as --format json'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from prune" -l before -d 'Remove the records from before this time: 2026-11-22T22:00:00Z, 2026-11-22, or an age: 30d' -r
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from prune" -l keep -d 'Keep the newest records, of this size at most: bytes, or with K, M, G, T (1024 of the next)' -r
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from prune" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from prune" -l json -d 'One JSON object'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from seal" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from seal" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from unseal" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from unseal" -l force -d 'Also while the service runs'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from unseal" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from help" -f -a "verify" -d 'Walk over the whole log; print what is in it, and every line that is no record'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from help" -f -a "export" -d 'Print the records'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from help" -f -a "prune" -d 'Remove the oldest records for good; the service may run, and offsets stay what they are'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from help" -f -a "seal" -d 'Make the log append-only in the file system, as the service does when it starts as root'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from help" -f -a "unseal" -d 'Let root cut or remove the log again; the next start of the service seals it'
complete -c papayad -n "__fish_papayad_using_subcommand log; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papayad -n "__fish_papayad_using_subcommand token; and not __fish_seen_subcommand_from add list rotate revoke help" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand token; and not __fish_seen_subcommand_from add list rotate revoke help" -f -a "add" -d 'Make a token and print it, once: only its hash is kept'
complete -c papayad -n "__fish_papayad_using_subcommand token; and not __fish_seen_subcommand_from add list rotate revoke help" -f -a "list" -d 'Print all tokens; the secrets are not kept'
complete -c papayad -n "__fish_papayad_using_subcommand token; and not __fish_seen_subcommand_from add list rotate revoke help" -f -a "rotate" -d 'Make a new token in a token\'s place and print it, once; the old one ends after the grace'
complete -c papayad -n "__fish_papayad_using_subcommand token; and not __fish_seen_subcommand_from add list rotate revoke help" -f -a "revoke" -d 'Take back a token, or all of a name; its sessions end at once'
complete -c papayad -n "__fish_papayad_using_subcommand token; and not __fish_seen_subcommand_from add list rotate revoke help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from add" -l role -d 'member, operator (no rate limit, may post notices) or readonly' -r
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from add" -l expires -d 'Ends after this time: 30m, 12h, 7d' -r
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from add" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from add" -l json -d 'The token and what it is for as one JSON object'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from list" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from list" -l json -d 'One JSON object a line'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from rotate" -l grace -d 'How long the old one stays good, with its sessions: 0s ends it at once' -r
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from rotate" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from rotate" -l json -d 'The new token and what it is for as one JSON object'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from rotate" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from revoke" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from revoke" -l json -d 'One JSON object a line'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "add" -d 'Make a token and print it, once: only its hash is kept'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "list" -d 'Print all tokens; the secrets are not kept'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "rotate" -d 'Make a new token in a token\'s place and print it, once; the old one ends after the grace'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "revoke" -d 'Take back a token, or all of a name; its sessions end at once'
complete -c papayad -n "__fish_papayad_using_subcommand token; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papayad -n "__fish_papayad_using_subcommand status" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand status" -l json -d 'One JSON object a line: the service, then each client'
complete -c papayad -n "__fish_papayad_using_subcommand status" -l prometheus -d 'As text for the textfile collector of Prometheus\' node_exporter'
complete -c papayad -n "__fish_papayad_using_subcommand status" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand kick" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand kick" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand pause" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand pause" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand resume" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand resume" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand doctor" -l config -d 'The configuration file' -r -F
complete -c papayad -n "__fish_papayad_using_subcommand doctor" -l json -d 'One JSON object a line'
complete -c papayad -n "__fish_papayad_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and not __fish_seen_subcommand_from show test attack help" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and not __fish_seen_subcommand_from show test attack help" -f -a "show" -d 'Print the policy: system calls, descriptors, limits, and why'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and not __fish_seen_subcommand_from show test attack help" -f -a "test" -d 'Attack the policy, in processes confined like the service\'s; exits 77 unless all is refused'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and not __fish_seen_subcommand_from show test attack help" -f -a "attack" -d 'One attack, in this process'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and not __fish_seen_subcommand_from show test attack help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l role -d 'This role alone: launcher, keeper, listener, recv, recv-joined or send' -r
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l json -d 'One JSON object a line'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l markdown -d 'All roles as the document docs/confinement.md'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from test" -l role -d 'This role alone: launcher, keeper, listener, recv, recv-joined or send' -r
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from test" -l level -d 'Confined no more than this, to see what a weaker kernel leaves open: full, landlock-6, landlock-2 or seccomp' -r
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from test" -l json -d 'One JSON object a line'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from attack" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print the policy: system calls, descriptors, limits, and why'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "test" -d 'Attack the policy, in processes confined like the service\'s; exits 77 unless all is refused'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "attack" -d 'One attack, in this process'
complete -c papayad -n "__fish_papayad_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papayad -n "__fish_papayad_using_subcommand demo" -l script -d 'Play a short conversation between two clients, and end; also without a terminal'
complete -c papayad -n "__fish_papayad_using_subcommand demo" -s h -l help -d 'Print help'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "run" -d 'Serve in the foreground, until SIGTERM'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "check" -d 'Find every mistake in the configuration and around it; touches nothing'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "log" -d 'Look into the room\'s log'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "token" -d 'Give out and take back the tokens that people join with'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "status" -d 'Who is here'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "kick" -d 'End the sessions of a name, or of one RECV by its process id'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "pause" -d 'Close the door; whoever is connected stays'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "resume" -d 'Open the door again'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "doctor" -d 'Compare the running service with what it must be; exits 77 on any difference'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "sandbox" -d 'What each process of the service may do'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "demo" -d 'A room of your own on this machine, a token, and you in it; nothing stays behind'
complete -c papayad -n "__fish_papayad_using_subcommand help; and not __fish_seen_subcommand_from run check log token status kick pause resume doctor sandbox demo help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from log" -f -a "verify" -d 'Walk over the whole log; print what is in it, and every line that is no record'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from log" -f -a "export" -d 'Print the records'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from log" -f -a "prune" -d 'Remove the oldest records for good; the service may run, and offsets stay what they are'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from log" -f -a "seal" -d 'Make the log append-only in the file system, as the service does when it starts as root'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from log" -f -a "unseal" -d 'Let root cut or remove the log again; the next start of the service seals it'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "add" -d 'Make a token and print it, once: only its hash is kept'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "list" -d 'Print all tokens; the secrets are not kept'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "rotate" -d 'Make a new token in a token\'s place and print it, once; the old one ends after the grace'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from token" -f -a "revoke" -d 'Take back a token, or all of a name; its sessions end at once'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "show" -d 'Print the policy: system calls, descriptors, limits, and why'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "test" -d 'Attack the policy, in processes confined like the service\'s; exits 77 unless all is refused'
complete -c papayad -n "__fish_papayad_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "attack" -d 'One attack, in this process'
