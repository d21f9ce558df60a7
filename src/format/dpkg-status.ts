/**
 * Which packages a Debian system has: `/var/lib/dpkg/status`, paragraphs of `Field: value` lines as deb-control(5)
 * has them. Pure.
 */

/** Version by name; a package that is there for several architectures has one entry `name:architecture` for each. */
export function parseDpkgStatus(text: string): Map<string, string> {
  const installed: { readonly name: string; readonly architecture: string; readonly version: string }[] = [];
  for (const paragraph of text.split(/\n(?:[ \t]*\n)+/)) {
    const name = field(paragraph, 'Package');
    const version = field(paragraph, 'Version');
    const status = field(paragraph, 'Status') ?? '';
    // The last word is the state; "deinstall ok config-files" is a package that has gone.
    if (name === undefined || version === undefined || !/(?:^| )installed$/.test(status)) continue;
    installed.push({ name, version, architecture: field(paragraph, 'Architecture') ?? '' });
  }
  const counts = new Map<string, number>();
  for (const { name } of installed) counts.set(name, (counts.get(name) ?? 0) + 1);
  return new Map(
    installed.map(({ name, architecture, version }) => [
      (counts.get(name) ?? 0) > 1 ? `${name}:${architecture}` : name,
      version,
    ]),
  );
}

function field(paragraph: string, name: string): string | undefined {
  return new RegExp(`^${name}:[ \\t]*(.*?)[ \\t\\r]*$`, 'im').exec(paragraph)?.[1];
}
