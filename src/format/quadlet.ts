/**
 * Which image a quadlet file is about (podman-systemd.unit(5)): `Image=` in `[Image]` of an `.image` file, in
 * `[Container]` of a `.container` file. Everything else in it is for podman. Syntax as in systemd.syntax(7).
 */

import { HostctlError } from '../errors.ts';

/** The section of each kind of file. */
const SECTIONS: Readonly<Record<string, string>> = { image: 'Image', container: 'Container' };

/** Whether a name is one of a file that can name an image. */
export function isQuadletName(name: string): boolean {
  return sectionOf(name) !== undefined;
}

/** Throws 'image-invalid' when there is none, or one that only a running systemd or podman could tell. */
export function quadletImage(name: string, text: string): string {
  const wanted = sectionOf(name);
  if (wanted === undefined) throw refuse(name, 'ends neither in ".image" nor in ".container"');
  let section: string | undefined;
  let image = '';
  for (const line of logicalLines(text)) {
    const header = /^\[(.*)\]$/.exec(line)?.[1];
    if (header !== undefined) section = header;
    if (section !== wanted) continue;
    const [, key, value = ''] = /^([A-Za-z0-9-]+)\s*=\s*(.*)$/.exec(line) ?? [];
    if (key === 'Image') image = value;
    if (key === 'AuthFile') throw refuse(name, 'has an "AuthFile=": the credentials are those of the host');
  }
  if (image === '') throw refuse(name, `has no "Image=" in its section [${wanted}]`);
  if (/^[^/:]+\.(image|build)$/.test(image)) throw refuse(name, `names the unit "${image}" instead of an image`);
  const literal = image.replaceAll('%%', '');
  if (literal.includes('%')) throw refuse(name, `has specifiers in "Image=${image}", which only systemd can tell`);
  return image.replaceAll('%%', '%');
}

function sectionOf(name: string): string | undefined {
  const dot = name.lastIndexOf('.');
  return dot < 0 ? undefined : SECTIONS[name.slice(dot + 1)];
}

/** Without comments and blank lines; a backslash at the end goes on with the next line. */
function* logicalLines(text: string): Generator<string, void> {
  let before = '';
  for (const raw of text.split(/\r?\n/)) {
    const line = raw.trim();
    if (/^[#;]/.test(line)) continue;
    const whole = before + line;
    before = whole.endsWith('\\') ? `${whole.slice(0, -1)} ` : '';
    if (before === '' && whole !== '') yield whole.trim();
  }
}

function refuse(name: string, how: string): HostctlError {
  return new HostctlError('image-invalid', `The bound image "${name}" ${how}`);
}
