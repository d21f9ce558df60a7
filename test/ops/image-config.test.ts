import { describe, expect, test } from 'vitest';
import { DEFAULT_BOOT_CONFIG } from '../../src/format/boot-config.ts';
import { imageBootConfig } from '../../src/ops/image-config.ts';
import type { TreeNode } from '../../src/tree/node.ts';
import { BOOT_CONFIGS, CONF } from '../helpers/boot-configs.ts';
import { contentOf, dir, file, symlink, tree } from '../helpers/tree-builder.ts';

const read = (nodes: Readonly<Record<string, TreeNode>>) => imageBootConfig(tree(nodes), (node) => [contentOf(node)]);

describe("the places that an image's hostctl.conf makes writable", () => {
  // The boot hook is tested with the same table.
  test.each(BOOT_CONFIGS)('$name', ({ files, expected }) => {
    const nodes = Object.entries(files).map(([path, text]) => [
      `/${path}`,
      text.startsWith('-> ') ? symlink(text.slice(3)) : file(text),
    ]);
    const places = () => read({ '/usr': dir(), ...Object.fromEntries(nodes) } as Record<string, TreeNode>);
    if (expected === 'refused') {
      expect(places).toThrow(expect.objectContaining({ code: 'image-not-bootable' }));
    } else {
      expect(places()).toEqual({ ...DEFAULT_BOOT_CONFIG, ...expected });
    }
  });

  test.each([
    ['a NUL byte, which a shell drops', '[etc]\nmode=tran\0sient\n', /has a NUL byte/],
    ['more than 64 KiB', `#${'x'.repeat(65536)}\n`, /more than 65536 bytes/],
    ['an unknown value, with what is known', '[etc]\nmode=x\n', /"etc.mode" is "x", not one of persistent, transient/],
  ])('refuses %s, naming the file', (_, text, message) => {
    expect(() => read({ [`/${CONF}`]: file(text) })).toThrow(message);
    expect(() => read({ [`/${CONF}`]: file(text) })).toThrow(`"/${CONF}"`);
  });
});
