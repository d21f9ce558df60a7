/** Reads a POSIX shell script for the programs it calls; enough of the grammar for the short scripts of this project. */

const KEYWORDS_AND_BUILTINS = new Set(
  (
    'if then elif else fi case esac while until for do done in command exec exit return export set shift trap read ' +
    'printf echo test true false break continue unset local cd'
  ).split(' '),
);

/** The external programs a script calls, sorted. Functions of its own and builtins are left out. */
export function commandsOf(script: string): string[] {
  const text = script
    // Here-documents and comments hold no commands.
    .replace(/<<(\w+)\n[\s\S]*?\n\1\n/g, '\n')
    .replace(/^\s*#.*$/gm, '')
    .replace(/\\\n/g, ' ')
    // Patterns of a case, up to their parenthesis.
    .replace(/^\s*[^()\s][^()]*\)(?=\s|$)/gm, ';');
  const functions = new Set([...script.matchAll(/^(\w+)\(\)/gm)].map((match) => match[1]));
  const substitutions = [...text.matchAll(/\$\(\s*([a-z][\w.-]*)/g)];
  const statements = [
    ...text
      .replace(/"[^"]*"|'[^']*'/g, '""')
      .matchAll(/(?<=^|;|&&|\||\bthen|\belse|\bdo|\bif|\bwhile|!)[ \t]*([a-z][\w.-]*)(?![\w.-]*=)/gm),
  ];
  const words = [...substitutions, ...statements].map((match) => match[1] ?? '');
  return [...new Set(words)].filter((word) => !functions.has(word) && !KEYWORDS_AND_BUILTINS.has(word)).sort();
}
