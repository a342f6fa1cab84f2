# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_papaya_global_optspecs
    string join \n h/help V/version
end

function __fish_papaya_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_papaya_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_papaya_using_subcommand
    set -l cmd (__fish_papaya_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c papaya -n "__fish_papaya_needs_command" -s h -l help -d 'Print help'
complete -c papaya -n "__fish_papaya_needs_command" -s V -l version -d 'Print version'
complete -c papaya -n "__fish_papaya_needs_command" -f -a "join" -d 'Enter the room and talk'
complete -c papaya -n "__fish_papaya_needs_command" -f -a "send" -d 'Send messages; ends with 0 when all are stored'
complete -c papaya -n "__fish_papaya_needs_command" -f -a "tail" -d 'Print the last messages, and what comes'
complete -c papaya -n "__fish_papaya_needs_command" -f -a "history" -d 'Print what was said'
complete -c papaya -n "__fish_papaya_needs_command" -f -a "profile" -d 'Store servers and tokens under names'
complete -c papaya -n "__fish_papaya_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papaya -n "__fish_papaya_using_subcommand join" -l server -d 'The server, instead of a profile; the port is 7722 when it is left out' -r
complete -c papaya -n "__fish_papaya_using_subcommand join" -l token-file -d 'A file that holds the token, instead of being asked for it' -r -F
complete -c papaya -n "__fish_papaya_using_subcommand join" -l history -d 'Show this many messages from before' -r
complete -c papaya -n "__fish_papaya_using_subcommand join" -l json -d 'One JSON object a line instead of a conversation: the record, and its offset'
complete -c papaya -n "__fish_papaya_using_subcommand join" -s h -l help -d 'Print help'
complete -c papaya -n "__fish_papaya_using_subcommand send" -l server -d 'The server, instead of a profile; the port is 7722 when it is left out' -r
complete -c papaya -n "__fish_papaya_using_subcommand send" -l token-file -d 'A file that holds the token, instead of being asked for it' -r -F
complete -c papaya -n "__fish_papaya_using_subcommand send" -l timeout -d 'Give up when nothing was acknowledged for this long' -r
complete -c papaya -n "__fish_papaya_using_subcommand send" -s h -l help -d 'Print help'
complete -c papaya -n "__fish_papaya_using_subcommand tail" -l server -d 'The server, instead of a profile; the port is 7722 when it is left out' -r
complete -c papaya -n "__fish_papaya_using_subcommand tail" -l token-file -d 'A file that holds the token, instead of being asked for it' -r -F
complete -c papaya -n "__fish_papaya_using_subcommand tail" -l history -d 'Begin this many messages before the end (default: 10)' -r
complete -c papaya -n "__fish_papaya_using_subcommand tail" -l from -d 'Begin at this byte offset of the log' -r
complete -c papaya -n "__fish_papaya_using_subcommand tail" -l count -d 'End after this many messages, waiting for them if need be; presence lines do not count' -r
complete -c papaya -n "__fish_papaya_using_subcommand tail" -s f -l follow -d 'Stay, and print what comes'
complete -c papaya -n "__fish_papaya_using_subcommand tail" -l json -d 'One JSON object a line: the record, and its offset'
complete -c papaya -n "__fish_papaya_using_subcommand tail" -s h -l help -d 'Print help'
complete -c papaya -n "__fish_papaya_using_subcommand history" -l server -d 'The server, instead of a profile; the port is 7722 when it is left out' -r
complete -c papaya -n "__fish_papaya_using_subcommand history" -l token-file -d 'A file that holds the token, instead of being asked for it' -r -F
complete -c papaya -n "__fish_papaya_using_subcommand history" -l since -d 'Begin at this time: 2026-11-22T22:00:00Z, 2026-11-22 (local time), or an age such as 2h or 3d' -r
complete -c papaya -n "__fish_papaya_using_subcommand history" -l limit -d 'At most this many messages: the first ones with --since, else the last ones (default: 100)' -r
complete -c papaya -n "__fish_papaya_using_subcommand history" -l json -d 'One JSON object a line: the record, and its offset'
complete -c papaya -n "__fish_papaya_using_subcommand history" -s h -l help -d 'Print help'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and not __fish_seen_subcommand_from add list remove help" -s h -l help -d 'Print help'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and not __fish_seen_subcommand_from add list remove help" -f -a "add" -d 'Store a server and a token under a name'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and not __fish_seen_subcommand_from add list remove help" -f -a "list" -d 'Show all profiles, without their secrets'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and not __fish_seen_subcommand_from add list remove help" -f -a "remove" -d 'Delete a profile'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and not __fish_seen_subcommand_from add list remove help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from add" -l server -d 'The server, instead of a profile; the port is 7722 when it is left out' -r
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from add" -l token-file -d 'A file that holds the token, instead of being asked for it' -r -F
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from list" -l json -d 'One JSON object a line'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from help" -f -a "add" -d 'Store a server and a token under a name'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from help" -f -a "list" -d 'Show all profiles, without their secrets'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Delete a profile'
complete -c papaya -n "__fish_papaya_using_subcommand profile; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papaya -n "__fish_papaya_using_subcommand help; and not __fish_seen_subcommand_from join send tail history profile help" -f -a "join" -d 'Enter the room and talk'
complete -c papaya -n "__fish_papaya_using_subcommand help; and not __fish_seen_subcommand_from join send tail history profile help" -f -a "send" -d 'Send messages; ends with 0 when all are stored'
complete -c papaya -n "__fish_papaya_using_subcommand help; and not __fish_seen_subcommand_from join send tail history profile help" -f -a "tail" -d 'Print the last messages, and what comes'
complete -c papaya -n "__fish_papaya_using_subcommand help; and not __fish_seen_subcommand_from join send tail history profile help" -f -a "history" -d 'Print what was said'
complete -c papaya -n "__fish_papaya_using_subcommand help; and not __fish_seen_subcommand_from join send tail history profile help" -f -a "profile" -d 'Store servers and tokens under names'
complete -c papaya -n "__fish_papaya_using_subcommand help; and not __fish_seen_subcommand_from join send tail history profile help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c papaya -n "__fish_papaya_using_subcommand help; and __fish_seen_subcommand_from profile" -f -a "add" -d 'Store a server and a token under a name'
complete -c papaya -n "__fish_papaya_using_subcommand help; and __fish_seen_subcommand_from profile" -f -a "list" -d 'Show all profiles, without their secrets'
complete -c papaya -n "__fish_papaya_using_subcommand help; and __fish_seen_subcommand_from profile" -f -a "remove" -d 'Delete a profile'
