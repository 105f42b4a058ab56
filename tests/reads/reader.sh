# Reads token files as shell scripts do, and counts what no reader may see: `sh reader.sh WAY FORMAT:PATH...`.
#
# WAY is cat, read or source, for any POSIX shell; `substitute` needs bash, whose $(<FILE) it is. The lines that it
# prints are those of reader.c. It does not compute a checksum: a token is whole if it has the length that it names,
# and if all its words are the same.
export LC_ALL=C
way=$1
shift
reads=0 refreshes=0 torn=0 absent=0 expired=0 older=0 least=9999999999
trap 'ended=1' TERM

whole() { # a token; sets number and expires
  number=${1%%.*}
  rest=${1#*.}
  expires=${rest%%.*}
  rest=${rest#*.}
  length=${rest%%.*}
  body=${rest#*.}
  [ "${#1}" = "$length" ] || return 1
  word=${body%%-*}
  [ "${#word}" = 8 ] || return 1
  case $body in *[!0-9a-f-]*) return 1 ;; esac
  IFS=-
  # shellcheck disable=SC2086 # it is split into its words
  set -- $body
  unset IFS
  while [ $# -gt 1 ]; do
    [ "$1" = "$word" ] || return 1
    shift
  done
  case "$word" in "$1"*) ;; *) return 1 ;; esac # the last one is cut
}

say() { echo "$reads $refreshes $torn $absent $expired $older $least"; }

while [ -z "$ended" ]; do
  place=0
  for file; do
    [ -z "$ended" ] || break
    [ $((reads % 20)) = 1 ] && say
    place=$((place + 1))
    format=${file%%:*}
    path=${file#*:}
    # A moment before the file is opened, so that a pause of this process blames no file.
    read -r up _ </proc/uptime
    before=${up%.*}${up#*.}0
    there=1
    case $way in
    cat) text=$(cat "$path") || there= ;;
    read) text= there= && { there=1 && read -r text; } <"$path" ;;
    source) TOKEN= && command . "$path" && text=$TOKEN || there= ;;
    substitute) text=$(<"$path") || there= ;;
    esac
    reads=$((reads + 1))
    if [ -z "$there" ] && [ -z "$ended" ]; then
      absent=$((absent + 1))
      echo "fault cannot be read $path"
      continue
    fi
    case $format in header) text=${text#Authorization: Bearer } ;; esac
    if ! whole "$text"; then
      [ -n "$ended" ] && break # TERM also ends cat
      torn=$((torn + 1))
      echo "fault torn $path"
      continue
    fi
    left=$((expires - before))
    [ "$left" -lt "$least" ] && least=$left
    if [ "$left" -le 0 ]; then
      expired=$((expired + 1))
      echo "fault expired $path: token $number at $before"
    fi
    eval "last=\${seen_$place:-0}"
    if [ "$number" -lt "$last" ]; then
      older=$((older + 1))
      echo "fault older $path: token $number after $last"
    fi
    [ "$last" -gt 0 ] && [ "$number" -gt "$last" ] && refreshes=$((refreshes + 1))
    eval "seen_$place=$number"
  done
done
say
