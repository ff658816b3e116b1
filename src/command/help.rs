//! What stands below the help of `serve`.

/// Places of options, signals, exit codes, and what the demo allows.
pub(super) const AFTER: &str = "\
Where options come from: each is a variable of the environment, too, and stands in the file of --config (TOML) by its name. The command \
line is heeded before the environment, and that before the file. A variable that is empty is none; of an option that is repeatable it \
has several values with spaces between, or, of files and header lines, one a line. In a file these are an array, and the options of \
another command stand below its name, such as [connect]. switchboard check --print-config prints one with all options.

Signals:
  SIGTERM, SIGINT  end the server in order, within ten seconds; a second one at once
  SIGHUP           loads certificates again, and opens the file of the log again

Exit codes:
  0    ended by a signal, in order
  1    an error, which the last line tells; switchboard check tells all before
  2    wrong usage: of the command line, the environment or the file
  130  interrupted twice

What one client may send into a room is limited, beyond it with close code 1008: on /broadcast 4 MiB at once and then 1 MiB a second; \
in a chat 64 KiB at once and then 16 KiB a second, in lines of up to 16 KiB.";
