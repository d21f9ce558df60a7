/**
 * Users and groups whose number differs between two states of `/etc`, as in passwd(5) and group(5). One `/var` serves
 * both, and its files keep the old number: somebody has to be told. Pure.
 */

export interface AccountFiles {
  /** Text of `/etc/passwd`. */
  readonly passwd: string;
  /** Text of `/etc/group`. */
  readonly group: string;
}

export interface IdDrift {
  readonly kind: 'user' | 'group';
  readonly name: string;
  readonly oldId: number;
  readonly newId: number;
}

/** Names that both states have under different numbers: users, then groups, each in the order of the old file. */
export function findIdDrift(before: AccountFiles, after: AccountFiles): IdDrift[] {
  return [...drift('user', before.passwd, after.passwd), ...drift('group', before.group, after.group)];
}

function drift(kind: IdDrift['kind'], before: string, after: string): IdDrift[] {
  const newIds = idsOf(after);
  return [...idsOf(before)].flatMap(([name, oldId]) => {
    const newId = newIds.get(name);
    return newId === undefined || newId === oldId ? [] : [{ kind, name, oldId, newId }];
  });
}

/** Both files have the name first and its number third. As for the C library, the first line of a name counts. */
function idsOf(text: string): Map<string, number> {
  const ids = new Map<string, number>();
  for (const line of text.split('\n')) {
    const [name, , id] = line.split(':');
    // Other lines are comments, or "+" and "-" for accounts from elsewhere.
    if (name === undefined || !/^[^#+-]/.test(name) || id === undefined || !/^\d+$/.test(id)) continue;
    if (!ids.has(name)) ids.set(name, Number(id));
  }
  return ids;
}
