/**
 * Files of an image's `hostctl.conf` and what they mean. One table for the two readers there are, the boot hook in
 * shell and the deploying side: what one refuses the other must refuse.
 */

export const CONF = 'usr/lib/hostctl/hostctl.conf';
export const DROP_INS = `${CONF}.d`;

export interface BootConfigCase {
  readonly name: string;
  /** Text by path in the image; `-> target` is a link. */
  readonly files: Readonly<Record<string, string>>;
  /** What differs from the defaults. */
  readonly expected: Partial<Record<'etc' | 'root' | 'var', string>> | 'refused';
}

export const BOOT_CONFIGS: readonly BootConfigCase[] = [
  { name: 'an empty file', files: { [CONF]: '' }, expected: {} },
  {
    name: 'every default said',
    files: { [CONF]: '[etc]\nmode=persistent\n[root]\nmode=read-only\n[var]\nmode=shared\n' },
    expected: {},
  },
  {
    name: 'blanks, tabs, carriage returns and comments around everything',
    files: { [CONF]: '# first\n;second\n\n\t[etc] \r\n  mode \t=\t transient\t\r\n[var]\nmode=mount' },
    expected: { etc: 'transient', var: 'mount' },
  },
  {
    name: 'other sections and keys that are not for the boot',
    files: { [CONF]: '[deploy]\ntries = 5\n[root]\nmode=transient\n[deploy]\ntries=4\n' },
    expected: { root: 'transient' },
  },
  {
    name: 'the last of several',
    files: { [CONF]: '[etc]\nmode=transient\n[var]\nmode=mount\n[etc]\nmode=persistent\n' },
    expected: { var: 'mount' },
  },
  {
    name: 'drop-ins in the order of their names, after the file',
    files: {
      [CONF]: '[etc]\nmode=transient\n[root]\nmode=transient\n',
      [`${DROP_INS}/20-b.conf`]: '[etc]\nmode=persistent\n',
      [`${DROP_INS}/10-a.conf`]: '[etc]\nmode=transient\n[var]\nmode=mount\n',
    },
    expected: { root: 'transient', var: 'mount' },
  },
  {
    name: 'drop-ins alone, capitals before small letters',
    files: {
      [`${DROP_INS}/a.conf`]: '[etc]\nmode=persistent\n',
      [`${DROP_INS}/Z.conf`]: '[etc]\nmode=transient\n',
    },
    expected: {},
  },
  {
    name: 'only drop-ins that end in .conf and do not begin with a dot',
    files: {
      [`${DROP_INS}/10-a.conf~`]: '[etc]\nmode=what\n',
      [`${DROP_INS}/.b.conf`]: '[etc]\nmode=what\n',
      [`${DROP_INS}/README`]: 'no ini file\n',
    },
    expected: {},
  },
  {
    name: 'a long comment',
    files: { [CONF]: `#${'x'.repeat(9000)}\n[etc]\nmode=transient\n` },
    expected: { etc: 'transient' },
  },
  // What both refuse.
  { name: 'an unknown value', files: { [CONF]: '[etc]\nmode = volatile\n' }, expected: 'refused' },
  { name: 'a value of another place', files: { [CONF]: '[var]\nmode = transient\n' }, expected: 'refused' },
  { name: 'an empty value', files: { [CONF]: '[root]\nmode =\n' }, expected: 'refused' },
  { name: 'a capital letter', files: { [CONF]: '[etc]\nmode = Transient\n' }, expected: 'refused' },
  { name: 'quotes', files: { [CONF]: '[etc]\nmode = "transient"\n' }, expected: 'refused' },
  { name: 'a comment behind a value', files: { [CONF]: '[etc]\nmode = transient ; why\n' }, expected: 'refused' },
  { name: 'two words', files: { [CONF]: '[etc]\nmode = transient persistent\n' }, expected: 'refused' },
  { name: 'a pattern', files: { [CONF]: '[etc]\nmode = *\n' }, expected: 'refused' },
  { name: 'a substitution', files: { [CONF]: '[etc]\nmode = $(echo transient)\n' }, expected: 'refused' },
  { name: 'a line that is none', files: { [CONF]: '[etc]\nmode\n' }, expected: 'refused' },
  { name: 'a section that does not end', files: { [CONF]: '[etc\nmode=transient\n' }, expected: 'refused' },
  {
    name: 'a wrong value that a later file puts right',
    files: { [CONF]: '[etc]\nmode=x\n', [`${DROP_INS}/a.conf`]: '[etc]\nmode=transient\n' },
    expected: 'refused',
  },
  { name: 'a wrong drop-in', files: { [`${DROP_INS}/a.conf`]: '[root]\nmode=rw\n' }, expected: 'refused' },
  { name: 'a link in place of the file', files: { [CONF]: '-> /etc/hostctl.conf' }, expected: 'refused' },
  { name: 'a link in place of a drop-in', files: { [`${DROP_INS}/a.conf`]: '-> ../x' }, expected: 'refused' },
  { name: 'a link in place of the folder of drop-ins', files: { [DROP_INS]: '-> /etc/hostctl' }, expected: 'refused' },
  { name: 'a link in place of /usr/lib/hostctl', files: { 'usr/lib/hostctl': '-> /etc/hostctl' }, expected: 'refused' },
  { name: 'a directory in place of the file', files: { [`${CONF}/x`]: '' }, expected: 'refused' },
];
